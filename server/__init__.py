"""Serves vectors and search from an exported artifact; imports nothing that trains or exports."""

VERSION = "0.1.0"
