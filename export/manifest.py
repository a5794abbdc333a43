"""Makes an artifact's manifest, and the identity by which an export is found to be up to date."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx

from export import texts
from export.artifact import fingerprint, settings_hash
from export.build import Graphs
from export.settings import Settings
from export.source.model import SourceModel
from server.inference.manifest import (
    FORMAT_VERSION,
    TOKENIZER_FILE,
    Agreement,
    Manifest,
    Quantization,
    SelfTest,
    TextRules,
)
from server.inference.runtime import VERSION as RUNTIME_VERSION
from server.system.cpu import cpu_features, int8_instruction_set


@dataclass(frozen=True, slots=True)
class Verified:
    """What verification found. monotonous: the agreement on texts of one or few tokens."""

    agreement: Agreement
    monotonous: Agreement
    self_test: list[SelfTest]


def identity(source: SourceModel, rules: TextRules, settings: Settings) -> str:
    """Return a hash of everything that decides what the artifact will hold."""
    return settings_hash(
        {
            "format": FORMAT_VERSION,
            "recipe": source.recipe,
            "runtime": RUNTIME_VERSION,
            "onnx": onnx.__version__,
            "checkpoint": source.sha256,
            "model_id": source.model_id,
            "revision": source.revision,
            "text": msgspec.to_builtins(rules),
            "precision": settings.precision,
            "weight_bits": settings.weight_bits,
            "calibration": _file_hash(settings.calibration or texts.CALIBRATION),
            "verification": _file_hash(settings.verify_texts or texts.VERIFICATION),
            "thresholds": [settings.thresholds.mean, settings.thresholds.minimum],
            "matryoshka": settings.matryoshka,
            "via": settings.via,
        }
    )


def manifest_of(
    source: SourceModel,
    graphs: Graphs,
    rules: TextRules,
    verified: Verified,
    settings: Settings,
    settings_sha256: str,
) -> Manifest:
    """Return the manifest of a verified artifact; settings_sha256: what `identity` returned."""
    tokenizer = source.tokenizer_json.encode()
    space = {"lower_case": rules.lower_case, "max_tokens": rules.max_tokens}
    return Manifest(
        format_version=FORMAT_VERSION,
        model_id=source.model_id,
        revision=source.revision,
        fingerprint=fingerprint(graphs.served_model, tokenizer, space),
        family=source.family,
        pooling=source.settings.pooling,
        normalized=source.settings.normalize,
        dimension=graphs.dimension,
        text=rules,
        precision=settings.precision,
        groups=graphs.packing.groups,
        packed_tokens=graphs.packing.longest,
        matryoshka_dimensions=sorted(settings.matryoshka),
        files=graphs.served_model.sha256()
        | {TOKENIZER_FILE: hashlib.sha256(tokenizer).hexdigest()},
        checkpoint_sha256=source.sha256,
        quantization=None if settings.precision == "fp32" else _quantization(source, settings),
        agreement=verified.agreement,
        monotonous_agreement=verified.monotonous,
        instruction_set=int8_instruction_set(cpu_features()),
        exported_with={
            "onnxruntime": RUNTIME_VERSION,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        settings_sha256=settings_sha256,
        self_test=verified.self_test,
        task="dense",
    )


def _quantization(source: SourceModel, settings: Settings) -> Quantization:
    calibration = settings.calibration or texts.CALIBRATION
    return Quantization(
        recipe=source.recipe,
        weight_bits=settings.weight_bits,
        calibration_sha256=_file_hash(calibration),
        calibration_texts=len(texts.read_texts(calibration, at_least=1)),
    )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
