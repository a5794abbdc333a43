"""Decoders as encoders of texts: Qwen3-Embedding, e5-mistral and others of their architecture."""
