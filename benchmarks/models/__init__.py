"""Checkpoints of published shapes with random weights: what a family costs without its real weights."""
