"""Documents on disk and the index over their vectors.

`documents` (SQLite) is the truth, a vector index is derived from it, `collection` keeps the two
together. What joins them is the label: an integer that names one version of one document.
"""
