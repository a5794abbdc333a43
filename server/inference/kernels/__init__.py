"""Computes encoders with kernels of this project, where the graph is one that they know; see `source/encoder.c`."""
