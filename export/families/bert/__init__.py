"""BERT encoders: what config.json says of one, its linear layers, and the graph that serves it."""
