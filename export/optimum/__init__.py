"""The optional route for networks that no family writes: traced with torch and rewritten."""
