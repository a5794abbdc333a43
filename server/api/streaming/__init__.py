"""Bodies that are read or sent piece by piece, because they are larger than memory should hold."""
