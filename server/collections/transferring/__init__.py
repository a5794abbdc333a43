"""Copies of collections in another store: from this server's disk into a vector database, back, or between two."""
