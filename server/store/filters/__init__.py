"""Filters on documents: parsed, translated to SQL, and evaluated in memory."""
