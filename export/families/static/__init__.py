"""Static embeddings: a vector for each token of the vocabulary, whose mean is the vector of a text."""
