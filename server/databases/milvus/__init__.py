"""Collections in Milvus: a cluster, or milvus-lite in a file of this machine."""
