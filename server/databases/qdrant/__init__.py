"""Collections in Qdrant: on servers, or in a folder that its client opens by itself."""
