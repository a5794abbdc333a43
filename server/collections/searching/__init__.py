"""Searches with options: what they cost, and searches over several collections."""
