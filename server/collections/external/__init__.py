"""Collections whose documents are in a vector database elsewhere, behind the same surface as the others."""
