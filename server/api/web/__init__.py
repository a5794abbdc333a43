"""The page of the interface and its static files."""
