"""Reads of whole documents: their chunks with vectors, and all documents of one moment."""
