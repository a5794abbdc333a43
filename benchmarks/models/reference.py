"""Prints what sentence-transformers computes from a folder; run by a Python that has torch.

    python -m benchmarks.models.reference FOLDER < texts.json > results.json

It imports nothing of this project. Texts are strings, or pairs of strings for a cross-encoder, whose scores are
then not activated.
"""

import json
import sys

import sentence_transformers
import torch

from server.system.output import until_reader_leaves


def main() -> None:
    texts = json.load(sys.stdin)
    folder = sys.argv[1]
    if isinstance(texts[0], list):
        scorer = sentence_transformers.CrossEncoder(folder, device="cpu")
        rows = scorer.predict([tuple(pair) for pair in texts], activation_fn=torch.nn.Identity())
        rows = rows.reshape(-1, 1)
    else:
        rows = sentence_transformers.SentenceTransformer(folder, device="cpu").encode(texts)
    found = {"by": f"sentence-transformers {sentence_transformers.__version__}"}
    json.dump({**found, "rows": rows.tolist()}, sys.stdout)


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
