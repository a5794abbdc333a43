"""Stored result lines, shown as a document with tables and plots."""
