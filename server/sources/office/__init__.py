"""Readers of office files: each gives the sections that become documents."""
