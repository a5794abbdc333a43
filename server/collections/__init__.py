"""Collections of documents on the event loop."""
