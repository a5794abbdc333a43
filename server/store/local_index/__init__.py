"""The vector index of this server: in memory, one file, FAISS for the arithmetic."""
