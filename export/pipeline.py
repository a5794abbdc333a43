"""The steps of an export in order: read, calibrate and quantise, verify, write.

Each step is a module of its own; this one only hands their results on and reports progress.
"""

import hashlib
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import onnx.checker
from tqdm import tqdm

from export import artifact, quantise, texts
from export.checkpoint import Checkpoint, SentenceSettings, read_checkpoint
from export.errors import NoSuchModel, UnsupportedModel
from export.families.bert import build_model, packing
from export.families.linears import float_linears, layer_names
from export.instructions import instructions
from export.verify import Thresholds, embed_each, verify
from server.inference.encoder import SessionEncoder
from server.inference.manifest import (
    FORMAT_VERSION,
    MODEL_FILE,
    TOKENIZER_FILE,
    Agreement,
    Manifest,
    Quantization,
    SelfTest,
    TextRules,
)
from server.inference.runtime import VERSION as RUNTIME_VERSION
from server.inference.tokenizer import Tokenizer
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.system.cpu import cpu_budget, cpu_features, int8_instruction_set
from server.types import Ids, Packing, VectorEncoder

# Calibration stops gaining long before this; more only costs time and memory.
MAX_CALIBRATION_TOKENS = 60_000
# The search samples 2,048 rows in all. Of 1,984 short texts that was one row each, the CLS row, and
# the vectors of other queries were at a mean cosine of 0.9947; of every fourth of them 0.9993.
MAX_CALIBRATION_TEXTS = 600
# Every n-th text is also calibrated and verified as a query, with the model's instruction.
QUERY_EVERY = 6
SELF_TEST_TEXTS = (
    "人工智能正在改变世界。",
    "The quick brown fox jumps over the lazy dog.",
    "第十二条 用人单位应当依法建立和完善劳动规章制度，保障劳动者享有劳动权利、履行劳动义务。",
    "GPU 不是必需的：CPU only, int8, 2026-11.",
    # Long enough for what only long texts go through.
    "向量检索把每一段文字变成一组数字，意思相近的文字，数字也相近。提问时只需把问题也变成数字，再找出最接近"
    "的那些段落。整个过程都在本机完成，不需要显卡，也不需要把任何内容发送到外部网络；即使断电，已经确认写入的"
    "文档也不会丢失，重新启动之后仍然可以按原来的方式继续查询，管理员不必重新导入任何文件。",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for; see `python -m export --help`."""

    source: str
    out: Path | None = None
    precision: Literal["int8", "fp32"] = "int8"
    weight_bits: int = 8
    calibration: Path | None = None
    verify_texts: Path | None = None
    thresholds: Thresholds = Thresholds()
    model_id: str | None = None
    revision: str = "main"
    query_instruction: str | None = None
    document_instruction: str | None = None
    matryoshka: tuple[int, ...] = ()
    via: Literal["graph", "optimum"] = "graph"
    allow_pickle: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class _Graphs:
    """float_model is the reference that served_model is verified against."""

    float_model: bytes
    served_model: bytes
    dimension: int
    family: str
    recipe: str
    packing: Packing


def export(settings: Settings, terminal: Terminal | None = None) -> Path:
    """Make the artifact that `settings` describe and return its folder; raises ExportError.

    terminal: for the report, in English if it is None.
    """
    started = time.perf_counter()
    terminal = terminal or Terminal.of({})
    _check_sizes(settings, None)
    folder, model_id, revision = _locate(settings)
    out = settings.out or folder / f"onnx-{settings.precision}"
    artifact.recover(out)
    source = _read_source(folder, settings)
    _check_sizes(settings, source.dimension)
    rules = _text_rules(source, model_id, settings)
    identity = _identity(source, rules, model_id, revision, settings)
    if not settings.force and artifact.is_current(out, identity):
        terminal.say("{out} is up to date", out=out)
        return out
    artifact.check_replaceable(out)

    tokenizer = Tokenizer(source.tokenizer_json, rules)
    calibration = texts.read_texts(settings.calibration or texts.CALIBRATION, at_least=20)
    verification = texts.read_texts(settings.verify_texts or texts.VERIFICATION, at_least=1)
    with _Progress(_steps(source, settings), terminal) as progress:
        graphs = _build(source, _calibration_ids(tokenizer, calibration), settings, progress)
        _check_sizes(settings, graphs.dimension)
        reference = SessionEncoder(graphs.float_model, graphs.packing, cpu_budget())
        served = SessionEncoder(graphs.served_model, graphs.packing, cpu_budget())
        labelled, ids = _verification_ids(tokenizer, verification)
        agreement = verify(
            reference, served, labelled, ids, rules.max_tokens, settings.thresholds, progress
        )
        manifest = _manifest(source, graphs, rules, agreement, settings, identity)
        manifest = msgspec.structs.replace(
            manifest,
            model_id=model_id,
            revision=revision,
            self_test=_self_test(served, tokenizer),
        )
        artifact.write_artifact(out, graphs.served_model, source.tokenizer_json.encode(), manifest)
    _report(terminal, out, graphs, agreement, time.perf_counter() - started)
    return out


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """What any architecture provides; `checkpoint` only where the graph is written directly.

    dimension: D, where it is known without running the network.
    """

    folder: Path
    settings: SentenceSettings
    tokenizer_json: str
    sha256: str
    checkpoint: Checkpoint | None

    @property
    def dimension(self) -> int | None:
        return None if self.checkpoint is None else self.checkpoint.shape.hidden


def _check_sizes(settings: Settings, dimension: int | None) -> None:
    """Refuse sizes that no vector of this model can be cut to, as early as `dimension` is known."""
    for size in settings.matryoshka:
        if size < 1 or (dimension is not None and size > dimension):
            most = Message("the dimension") if dimension is None else dimension
            raise UnsupportedModel(
                "--matryoshka {size} is outside 1 to {most}",
                size=size,
                most=most,
            )


def _locate(settings: Settings) -> tuple[Path, str, str]:
    """(checkpoint folder, model id, revision); downloads when `source` is a hub id."""
    folder = Path(settings.source)
    if folder.is_dir():
        return folder, settings.model_id or folder.resolve().name, "local"
    # A parent that exists means a path with a typing error, not a hub's organisation.
    if settings.source.count("/") != 1 or settings.source[0] in "./~" or folder.parent.is_dir():
        raise NoSuchModel("no model folder at {folder}", folder=folder)
    from export.hub import fetch

    name = settings.source.split("/")[1]
    target, revision = fetch(
        settings.source,
        Path("models") / name,
        revision=settings.revision,
        allow_pickle=settings.allow_pickle,
    )
    return target, settings.model_id or settings.source, revision


def _read_source(folder: Path, settings: Settings) -> _Source:
    if settings.via == "graph":
        checkpoint = read_checkpoint(folder, allow_pickle=settings.allow_pickle)
        return _Source(
            folder,
            checkpoint.settings,
            checkpoint.tokenizer_json,
            checkpoint.sha256,
            checkpoint,
        )
    from export.checkpoint import hash_files, read_json, read_settings, read_tokenizer

    config = read_json(folder / "config.json")
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model.bin")]
    return _Source(
        folder,
        read_settings(folder, config),
        read_tokenizer(folder),
        hash_files(folder, weights),
        None,
    )


def _text_rules(source: _Source, model_id: str, settings: Settings) -> TextRules:
    query, document = instructions(
        model_id, source.settings.prompts, source.settings.default_prompt
    )
    return TextRules(
        lower_case=source.settings.lower_case,
        max_tokens=source.settings.max_tokens,
        query_instruction=_first_given(settings.query_instruction, query),
        document_instruction=_first_given(settings.document_instruction, document),
    )


def _first_given(chosen: str | None, default: str) -> str:
    return default if chosen is None else chosen


def _identity(
    source: _Source, rules: TextRules, model_id: str, revision: str, settings: Settings
) -> str:
    """Hash of everything that decides what the artifact will hold."""
    return artifact.settings_hash(
        {
            "format": FORMAT_VERSION,
            "recipe": _recipe(settings),
            "runtime": RUNTIME_VERSION,
            "onnx": onnx.__version__,
            "checkpoint": source.sha256,
            "model_id": model_id,
            "revision": revision,
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


def _recipe(settings: Settings) -> str:
    if settings.via == "graph":
        return quantise.RECIPE
    from export import optimum

    return optimum.RECIPE


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


# --- texts to token ids ---------------------------------------------------------------------------


def _calibration_ids(tokenizer: Tokenizer, calibration: Sequence[str]) -> list[Ids]:
    """Token ids of the calibration texts, some as queries; evenly thinned to the limits."""
    ids = [*tokenizer.encode(calibration).ids]
    if tokenizer.rules.query_instruction:
        ids += tokenizer.encode(calibration[::QUERY_EVERY], "query").ids
    total = sum(map(len, ids))
    step = max(-(-total // MAX_CALIBRATION_TOKENS), -(-len(ids) // MAX_CALIBRATION_TEXTS))
    return ids[::step]


def _verification_ids(
    tokenizer: Tokenizer, verification: Sequence[str]
) -> tuple[list[str], list[Ids]]:
    """(texts as a report should show them, their token ids), some as queries."""
    labelled, ids = list(verification), [*tokenizer.encode(verification).ids]
    if tokenizer.rules.query_instruction:
        queries = verification[::QUERY_EVERY]
        labelled += [f"(query) {text}" for text in queries]
        ids += tokenizer.encode(queries, "query").ids
    return labelled, ids


def _self_test(served: VectorEncoder, tokenizer: Tokenizer) -> list[SelfTest]:
    vectors = embed_each(served, tokenizer.encode(SELF_TEST_TEXTS).ids)
    return [
        SelfTest(text, [float(f"{value:.7g}") for value in vector])
        for text, vector in zip(SELF_TEST_TEXTS, vectors, strict=True)
    ]


# --- graphs ---------------------------------------------------------------------------------------


def _build(
    source: _Source, token_ids: list[Ids], settings: Settings, progress: Callable[[str], None]
) -> _Graphs:
    if source.checkpoint is None:
        return _build_with_optimum(source, token_ids, settings, progress)
    checkpoint = source.checkpoint
    floats = float_linears(checkpoint)
    float_model = serialize(build_model(checkpoint, floats, int8_embeddings=False))
    dimension = checkpoint.shape.hidden
    if settings.precision == "fp32":
        any_length = packing(checkpoint, floats)
        return _Graphs(float_model, float_model, dimension, "bert", "float32", any_length)
    quantized = quantise.quantize(
        checkpoint,
        token_ids,
        weight_bits=settings.weight_bits,
        threads=cpu_budget(),
        progress=progress,
    )
    served_model = serialize(build_model(checkpoint, quantized.linears, int8_embeddings=True))
    return _Graphs(
        float_model,
        served_model,
        dimension,
        "bert",
        quantise.RECIPE,
        packing(checkpoint, quantized.linears),
    )


def _build_with_optimum(
    source: _Source, token_ids: list[Ids], settings: Settings, progress: Callable[[str], None]
) -> _Graphs:
    from export import optimum

    graphs = optimum.build_with_optimum(
        source.folder,
        source.settings,
        token_ids,
        precision=settings.precision,
        weight_bits=settings.weight_bits,
        allow_pickle=settings.allow_pickle,
        threads=cpu_budget(),
        progress=progress,
    )
    try:
        float_model = serialize(graphs.float_model)
        served_model = (
            float_model
            if graphs.served_model is graphs.float_model
            else serialize(graphs.served_model)
        )
    except onnx.checker.ValidationError as error:
        # The nodes are the other tools'; one that `bert` writes wrongly is a bug and stays one.
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModel(
            "the graph that optimum wrote is not valid ONNX: {reason}",
            reason=reason,
        ) from None
    return _Graphs(
        float_model,
        served_model,
        graphs.hidden,
        "optimum",
        "float32" if settings.precision == "fp32" else optimum.RECIPE,
        Packing(groups=1, longest=source.settings.max_tokens),
    )


def serialize(model: onnx.ModelProto) -> bytes:
    """The checked model as bytes, the same for the same model."""
    content = bytes(model.SerializeToString(deterministic=True))
    # The checker refuses larger ones in memory, whatever they hold, and would want them in a file.
    # They go on unchecked: ONNX Runtime checks what it loads, and `verify` runs it.
    if len(content) <= onnx.checker.MAXIMUM_PROTOBUF:
        onnx.checker.check_model(content)
    return content


def _manifest(
    source: _Source,
    graphs: _Graphs,
    rules: TextRules,
    agreement: Agreement,
    settings: Settings,
    identity: str,
) -> Manifest:
    tokenizer_bytes = source.tokenizer_json.encode()
    calibration = settings.calibration or texts.CALIBRATION
    space = {"lower_case": rules.lower_case, "max_tokens": rules.max_tokens}
    return Manifest(
        format_version=FORMAT_VERSION,
        model_id="",
        revision="",
        fingerprint=artifact.fingerprint(graphs.served_model, tokenizer_bytes, space),
        family=graphs.family,
        pooling=source.settings.pooling,
        normalized=source.settings.normalize,
        dimension=graphs.dimension,
        text=rules,
        precision=settings.precision,
        groups=graphs.packing.groups,
        packed_tokens=graphs.packing.longest,
        matryoshka_dimensions=sorted(settings.matryoshka),
        files={
            MODEL_FILE: hashlib.sha256(graphs.served_model).hexdigest(),
            TOKENIZER_FILE: hashlib.sha256(tokenizer_bytes).hexdigest(),
        },
        checkpoint_sha256=source.sha256,
        quantization=None
        if settings.precision == "fp32"
        else Quantization(
            recipe=graphs.recipe,
            weight_bits=settings.weight_bits,
            calibration_sha256=_file_hash(calibration),
            calibration_texts=len(texts.read_texts(calibration, at_least=1)),
        ),
        agreement=agreement,
        instruction_set=int8_instruction_set(cpu_features()),
        exported_with={
            "onnxruntime": RUNTIME_VERSION,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        settings_sha256=identity,
        self_test=[],
        task="dense",
    )


# --- telling the user -----------------------------------------------------------------------------


def _steps(source: _Source, settings: Settings) -> int:
    """How often `progress` will be called, for the bar's length."""
    if source.checkpoint is None:
        return 3 + (1 if settings.precision == "fp32" else 3)
    if settings.precision == "fp32":
        return 3
    layers = range(source.checkpoint.shape.layers)
    return 3 + sum(len(layer_names(source.checkpoint, index).sites) for index in layers)


class _Progress:
    """A bar on standard error, hidden if that is not a terminal."""

    def __init__(self, steps: int, terminal: Terminal) -> None:
        self._terminal = terminal
        unit = terminal.words("step")
        self._bar = tqdm(total=steps, unit=unit, file=terminal.err, leave=False, disable=None)

    def __enter__(self) -> Callable[[str], None]:
        return self._advance

    def _advance(self, step: str) -> None:
        self._bar.set_description(self._terminal.words(Message(step)))
        self._bar.update()

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _report(
    terminal: Terminal, out: Path, graphs: _Graphs, agreement: Agreement, seconds: float
) -> None:
    size = len(graphs.served_model) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    terminal.say(
        "{out}: {size:.1f} MB; cosine to float32 on {texts} texts: mean {mean:.5f}, minimum "
        "{minimum:.4f}; took {seconds:.0f} s and up to {peak:.0f} MB of memory",
        out=out,
        size=size,
        mean=agreement.mean,
        minimum=agreement.minimum,
        texts=agreement.texts,
        seconds=seconds,
        peak=peak,
    )
