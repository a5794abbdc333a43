"""Texts to the outputs of a model: tokens, batches, lanes, ONNX Runtime."""
