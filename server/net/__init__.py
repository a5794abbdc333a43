"""Connections and processes."""
