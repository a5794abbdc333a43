"""A collection seen from above: the metadata that is there, and a map of its chunks."""
