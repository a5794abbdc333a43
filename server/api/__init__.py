"""HTTP dialects, one a file: thin translations to and from the engine; none knows another."""
