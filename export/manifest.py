"""Makes an artifact's manifest, and the identity by which an export is found to be up to date."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx

from export.artifact import fingerprint, settings_hash
from export.build import Graphs
from export.quantisation import int4
from export.settings import Settings
from export.source.model import SourceModel
from export.texts.files import read_texts
from server.inference.manifest import (
    FORMAT_VERSION,
    TOKENIZER_FILE,
    Agreement,
    Manifest,
    OrderAgreement,
    Quantization,
    SelfTest,
    TextRules,
)
from server.inference.runtime import VERSION as RUNTIME_VERSION
from server.system.cpu import cpu_features, int8_instruction_set

# Rules that the checkpoint alone decides: of the graph, and of texts.
OFFSETS = ("second_text_offset", "instruction_offset")
READING = ("strip", "max_characters", "dropped_token")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts to calibrate or to verify on, with the hash of the file that they came from."""

    lines: list[str]
    sha256: str

    @classmethod
    def read(cls, path: Path, *, at_least: int) -> "Texts":
        """Read a file of texts, once: a pipe cannot be read again; raises BadTexts."""
        lines = read_texts(path, at_least=at_least)
        content = path.read_bytes() if path.is_file() else "\n".join(lines).encode()
        return cls(lines, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, slots=True)
class Verified:
    """What verification found.

    monotonous: the agreement on texts of one or few tokens. order: of candidates, where the model scores pairs.
    """

    agreement: Agreement
    monotonous: Agreement
    self_test: list[SelfTest]
    order: OrderAgreement | None = None


def identity(
    source: SourceModel,
    rules: TextRules,
    calibration: Texts,
    verification: Texts,
    settings: Settings,
) -> str:
    """Return a hash of everything that decides what the artifact will hold."""
    # Left out where the checkpoint alone decides it.
    task = {} if source.task in ("dense", "score") else {"task": source.task}
    return settings_hash(
        {
            **task,
            "format": FORMAT_VERSION,
            "recipe": _recipe(source, settings),
            "runtime": RUNTIME_VERSION,
            "onnx": onnx.__version__,
            "checkpoint": source.sha256,
            "model_id": source.model_id,
            "revision": source.revision,
            "text": _text_identity(rules),
            "precision": settings.precision,
            "weight_bits": settings.weight_bits,
            "calibration": calibration.sha256,
            "verification": verification.sha256,
            "thresholds": _thresholds_identity(source, settings),
            "matryoshka": source.sizes(settings).sizes,
            "via": settings.via,
        }
    )


def _recipe(source: SourceModel, settings: Settings) -> str:
    return int4.RECIPE if settings.precision == "int4" else source.recipe


def _text_identity(rules: TextRules) -> dict[str, object]:
    """Return the rules as they are hashed: those that the checkpoint alone decides are left out."""
    fields: dict[str, object] = msgspec.to_builtins(rules)
    for name in (*OFFSETS, *READING):
        del fields[name]
    if rules.pair_prompt is None:
        del fields["pair_prompt"]
    return fields


def _thresholds_identity(source: SourceModel, settings: Settings) -> list[float]:
    thresholds = settings.thresholds_of(source.task)
    order = [thresholds.order] if source.task == "score" else []
    return [thresholds.mean, thresholds.minimum, *order]


def manifest_of(
    source: SourceModel,
    graphs: Graphs,
    rules: TextRules,
    verified: Verified,
    calibration: Texts,
    settings: Settings,
    settings_sha256: str,
) -> Manifest:
    """Return the manifest of a verified artifact; settings_sha256: what `identity` returned."""
    tokenizer = source.tokenizer_json.encode()
    space: dict[str, object] = {"lower_case": rules.lower_case, "max_tokens": rules.max_tokens}
    if source.scoring is not None:
        space["activation"] = source.scoring.activation
        if rules.pair_prompt is not None:
            space["pair_prompt"] = msgspec.to_builtins(rules.pair_prompt)
    if source.task not in ("dense", "score"):
        space |= {"task": source.task, "skipped_tokens": source.form.skipped_tokens}
    usual = TextRules(rules.lower_case, rules.max_tokens)
    # Only where they differ, so that the fingerprints of other models stay.
    space |= {
        name: getattr(rules, name)
        for name in READING
        if getattr(rules, name) != getattr(usual, name)
    }
    return Manifest(
        format_version=FORMAT_VERSION,
        model_id=source.model_id,
        revision=source.revision,
        fingerprint=fingerprint(graphs.served_model, tokenizer, space),
        family=source.family,
        pooling=source.settings.pooling,
        normalized=source.settings.normalize,
        dimension=source.words if source.task == "sparse" else graphs.dimension,
        text=rules,
        precision=settings.precision,
        groups=graphs.packing.groups,
        packed_tokens=graphs.packing.longest,
        matryoshka_dimensions=sorted(source.sizes(settings).sizes),
        files=graphs.served_model.sha256()
        | {TOKENIZER_FILE: hashlib.sha256(tokenizer).hexdigest()},
        checkpoint_sha256=source.sha256,
        quantization=None
        if not settings.in_whole_numbers
        else Quantization(
            recipe=_recipe(source, settings),
            weight_bits=settings.weight_bits,
            calibration_sha256=calibration.sha256,
            calibration_texts=len(calibration.lines),
        ),
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
        task=source.task,
        activation="identity" if source.scoring is None else source.scoring.activation,
        order=verified.order,
        skipped_tokens=source.form.skipped_tokens,
        similarity=source.settings.similarity,
    )
