"""GGUF files: a model in one file, as llama.cpp reads it, seen as the folder that it was made from."""
