"""Search, in the native format."""
