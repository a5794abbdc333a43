"""Turns the float32 layers of a network into int8, 4-bit or 16-bit ones."""
