"""Documents read whole, with their vectors: several by their ids, or all of one moment."""
