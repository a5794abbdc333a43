"""The answer of GET /info: the first model and the limits as TEI states them, and every model with its task.

The first model is that of `ModelRegistry.first`: an embedding model where one is served.
"""

from typing import Any

import msgspec

from server.config import Config
from server.inference.engine import Engine
from server.inference.manifest import Manifest, TextRules
from server.inference.registry import ModelRegistry

# As TEI states a reranker, which has one label.
RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}


def info(models: ModelRegistry, config: Config, version: str) -> dict[str, Any]:
    """Return TEI's keys and this server's own."""
    manifest = models.first.engine.manifest
    vectors = manifest.task == "dense"
    return {
        "model_id": manifest.model_id,
        "model_sha": manifest.revision,
        "model_dtype": manifest.precision,
        "served_model_name": models.alias or manifest.model_id,
        "model_type": _model_type(manifest),
        "max_concurrent_requests": None,
        "max_input_length": manifest.text.max_tokens,
        "max_batch_tokens": config.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": config.max_texts,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version,
        "sha": None,
        "docker_label": None,
        "dimension": manifest.dimension if vectors else None,
        "normalized": manifest.normalized,
        "similarity": manifest.similarity,
        "fingerprint": manifest.fingerprint,
        "query_instruction": _instruction(manifest.text),
        "document_instruction": manifest.text.document_instruction,
        "agreement_with_float32": msgspec.to_builtins(manifest.agreement),
        "models": [_entry(engine) for engine in models.engines],
    }


def _model_type(manifest: Manifest) -> dict[str, Any]:
    """Return TEI's kind of model: sparse weights are an embedding with a pooling of their own there."""
    if manifest.task == "score":
        return RERANKER
    return {"embedding": {"pooling": "splade" if manifest.task == "sparse" else manifest.pooling}}


def _entry(engine: Engine) -> dict[str, Any]:
    """Return what a client needs to choose a model."""
    name, manifest = engine.model.name, engine.manifest
    entry = {"name": name, "task": manifest.task, "max_input_length": manifest.text.max_tokens}
    prompt = manifest.text.pair_prompt
    return entry if prompt is None else {**entry, "instruction": prompt.instruction}


def _instruction(text: TextRules) -> str:
    """Return what stands before queries, or in the prompt of a pair."""
    return text.query_instruction if text.pair_prompt is None else text.pair_prompt.instruction
