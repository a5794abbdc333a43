"""Compares what is exported with the float32 network."""
