"""Counters, spans and logs. Knows nothing of documents; the app registers what looks at them."""
