"""Libraries as functions from texts to vectors, with the settings that small.py and library.py share.

Each takes a folder and a number of threads. Packages are imported when they are chosen, because an
environment holds those of one library.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Texts and the size of a batch to float32 (N, D), rows of length 1.
Encode = Callable[[list[str], int], np.ndarray]
ONNX_FILE = "onnx/model_quantized.onnx"
OPENVINO_FILE = "openvino/openvino_model_quantized.xml"


def torch(folder: str, threads: int, dtype: str = "float32") -> Encode:
    """Return sentence-transformers on PyTorch; folder: the checkpoint."""
    import torch

    torch.set_num_threads(threads)
    return _sentence_transformers(folder, "torch", {"dtype": getattr(torch, dtype)})


def onnx(folder: str, threads: int) -> Encode:
    """Return sentence-transformers' ONNX backend in dynamic int8; folder: written by int8.py."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    chosen = {
        "file_name": ONNX_FILE,
        "provider": "CPUExecutionProvider",
        "session_options": options,
    }
    return _sentence_transformers(folder, "onnx", chosen)


def openvino(folder: str, threads: int) -> Encode:
    """Return sentence-transformers' OpenVINO backend in static int8; folder: written by int8.py."""
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # subtle: pinned, processes with one thread each would all run on the first core.
        "ENABLE_CPU_PINNING": threads > 1,
    }
    return _sentence_transformers(
        folder, "openvino", {"file_name": OPENVINO_FILE, "ov_config": config}
    )


def fastembed(folder: str, threads: int) -> Encode:
    """Return fastembed with the file of `onnx`; texts must be lower-cased where the model asks for it.

    Its tokenizer is tokenizer.json alone, which for bge-small-zh does not lower-case.
    """
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=json.loads((Path(folder) / "config.json").read_text("utf-8"))["hidden_size"],
        model_file=ONNX_FILE,
    )
    model = TextEmbedding(name, specific_model_path=folder, threads=threads)
    return lambda texts, batch_size: np.stack(list(model.embed(texts, batch_size=batch_size)))


def _sentence_transformers(folder: str, backend: str, chosen: dict) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", backend=backend, model_kwargs=chosen)
    return lambda texts, batch_size: model.encode(
        texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
    )


LIBRARIES = {each.__name__: each for each in (torch, onnx, openvino, fastembed)}
