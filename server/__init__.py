"""Serves vectors and search from an exported artifact; imports nothing that trains or exports."""
