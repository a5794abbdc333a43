"""Metrics, spans and logs. Knows nothing of documents: the app registers the metrics of collections."""
