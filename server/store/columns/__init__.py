"""Metadata in memory, by field, for filters: derived from the database and versioned with the index."""
