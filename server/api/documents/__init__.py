"""Documents over HTTP: stored, read, listed, counted, changed and removed."""
