"""Routes that show a collection from above: its metadata, and a map."""
