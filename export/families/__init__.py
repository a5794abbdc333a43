"""Model families whose graphs are written directly from a checkpoint, one file a family."""
