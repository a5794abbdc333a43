"""Store what sentence-transformers makes of a list of texts, as the truth for the parity tests.

    python tests/support/reference_vectors.py MODEL_DIR TEXTS.json OUT.npz

Run by hand in an environment with torch and sentence-transformers: the tests read the stored file
and need neither. Every text goes alone through the model, on one thread, in float32. The file holds
    vectors   float32 (N, D), normalised if the model folder says so
    ids       int32, the token ids fed to the model, [CLS] and [SEP] included, all texts end to end
    offsets   int32 (N + 1,): text n has ids[offsets[n] : offsets[n + 1]]
    torch, transformers, sentence_transformers   version strings
The same texts, versions and CPU give the same file byte for byte.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

# Before the imports below, which read them: nothing is fetched, nothing is reported, and oneDNN
# may not lower float32 products to bfloat16 on CPUs that have it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = "STRICT"

import numpy as np
import numpy.typing as npt
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer


def load(model_dir: Path) -> SentenceTransformer:
    """Return the model in evaluation mode on the CPU; half-precision weights become float32."""
    model = SentenceTransformer(str(model_dir), device="cpu", local_files_only=True).float().eval()
    tensors = [*model.parameters(), *model.buffers()]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if dtypes != {torch.float32}:
        raise TypeError(f"the model computes in {dtypes}, not only in float32")
    return model


def embed(
    model: SentenceTransformer, texts: list[str]
) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
    """Return vectors, float32 (N, D), and the token ids that each text became."""
    ids: list[list[int]] = []

    def note_ids(_module: torch.nn.Module, args: tuple[dict[str, Any], ...]) -> None:
        # The first module's input is what encode() really feeds, after its own strip, lower and
        # truncation. Row 0 is the whole batch.
        ids.append(args[0]["input_ids"][0].tolist())

    hook = model[0].register_forward_pre_hook(note_ids)
    # subtle: one call a text, because encode() pads the texts of a batch to one length.
    rows = [model.encode(text, batch_size=1, show_progress_bar=False) for text in texts]
    hook.remove()
    vectors = np.stack(rows)
    if vectors.dtype != np.float32 or len(ids) != len(texts):
        raise TypeError(f"{len(texts)} texts gave {len(ids)} passes and {vectors.dtype} vectors")
    return vectors, ids


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("texts", type=Path, help="a JSON list of strings")
    parser.add_argument("out", type=Path, help="the .npz file to write")
    args = parser.parse_args()

    torch.set_num_threads(1)  # More would split sums differently from machine to machine.
    texts = json.loads(args.texts.read_text(encoding="utf-8"))
    vectors, ids = embed(load(args.model_dir), texts)
    np.savez_compressed(
        args.out,
        vectors=vectors,
        ids=np.concatenate([np.asarray(row, dtype=np.int32) for row in ids]),
        offsets=np.cumsum([0, *map(len, ids)], dtype=np.int32),
        torch=np.asarray(str(torch.__version__)),
        transformers=np.asarray(transformers.__version__),
        sentence_transformers=np.asarray(sentence_transformers.__version__),
    )


if __name__ == "__main__":
    main()
