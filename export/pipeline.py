"""The steps of an export in order: read, calibrate and quantise, verify, write.

Each step is a module of its own; this one hands their results on and reports progress.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from export import artifact, trade
from export.build import Graphs, build, n_steps
from export.errors import DisagreesWithCheckpoint, UnsupportedModel
from export.manifest import Texts, Verified, identity, manifest_of
from export.monotony import monotonous
from export.onnx_file import OnnxFile
from export.settings import TRIED, Settings
from export.source.model import SourceModel, locate, read_model
from export.source.text_preparation import open_tokenizer
from export.token_check import check_tokens
from export.trade import Trade
from export.verify import Thresholds, check_agreement, embed_each, verify
from export.vocabulary import choose_texts
from server.inference.encoder import SessionEncoder
from server.inference.manifest import Agreement, SelfTest
from server.inference.tokenizer import Tokenizer
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.system.cpu import cpu_budget
from server.types import Ids, VectorEncoder

# Calibration stops gaining long before this; more only costs time and memory.
MAX_CALIBRATION_TOKENS = 60_000
# The search samples 2,048 rows in all. Of 1,984 short texts that was one row each, the CLS row, and
# the vectors of other queries were at a mean cosine of 0.9947; of every fourth of them 0.9993.
MAX_CALIBRATION_TEXTS = 600
# Every n-th text is calibrated and verified as a query too, with the model's instruction.
QUERY_EVERY = 6
SELF_TEST_TEXTS = (
    "人工智能正在改变世界。",
    "The quick brown fox jumps over the lazy dog.",
    "第十二条 用人单位应当依法建立和完善劳动规章制度，保障劳动者享有劳动权利、履行劳动义务。",
    "GPU 不是必需的：CPU only, int8, 2026-11.",
    # Long enough for the part of the graph that only long texts use.
    "向量检索把每一段文字变成一组数字，意思相近的文字，数字也相近。提问时只需把问题也变成数字，再找出最接近"
    "的那些段落。整个过程都在本机完成，不需要显卡，也不需要把任何内容发送到外部网络；即使断电，已经确认写入的"
    "文档也不会丢失，重新启动之后仍然可以按原来的方式继续查询，管理员不必重新导入任何文件。",
)
# How often `verify` calls its `progress`.
VERIFY_STEPS = 3


def export(settings: Settings, terminal: Terminal | None = None) -> Path:
    """Make the artifact that `settings` describe and return its folder; raises ExportError.

    terminal: for the report, in English if it is None.
    """
    started = time.perf_counter()
    terminal = terminal or Terminal.of({})
    _check_sizes(settings, None)
    place = locate(settings, terminal.inform)
    out = settings.out or place.outputs / f"onnx-{settings.precision}"
    artifact.recover(out)
    source = read_model(place, settings)
    _check_sizes(settings, source.dimension)
    rules = source.text_rules(settings)
    tokenizer = open_tokenizer(source.tokenizer_json, rules)
    own = choose_texts(tokenizer, source.tokenizer_json)
    calibration = Texts.read(settings.calibration or own.calibration, at_least=20)
    verification = Texts.read(settings.verify_texts or own.verification, at_least=1)
    settings_sha256 = identity(source, rules, calibration, verification, settings)
    if not settings.force and artifact.is_current(out, settings_sha256):
        terminal.say("{out} is up to date", out=out)
        return out
    artifact.check_replaceable(out)
    if place.downloaded and settings.out is None:
        artifact.check_same_model(out, source.model_id, source.sha256)

    check_tokens(tokenizer, verification.lines)
    monotony = monotonous(tokenizer)
    calibration_ids = [
        *_calibration_ids(tokenizer, calibration.lines),
        *tokenizer.encode(monotony.calibration).ids,
    ]
    attempts = _attempts(settings, source)
    steps = sum(n_steps(source, attempt) + VERIFY_STEPS for attempt in attempts)
    texts_read = _Verification(tokenizer, verification.lines, monotony.verification)
    with _Progress(steps, terminal) as progress:
        settings, graphs, verified, trades = _first_accepted(
            attempts, source, calibration_ids, texts_read, progress
        )
        manifest = manifest_of(
            source, graphs, rules, verified, calibration, settings, settings_sha256
        )
        tokenizer_json = source.tokenizer_json.encode()
        artifact.write_artifact(out, graphs.served_model, tokenizer_json, manifest)
    trade.show(trades, terminal)
    _report(terminal, out, graphs, verified.agreement, time.perf_counter() - started)
    return out


def _check_sizes(settings: Settings, dimension: int | None) -> None:
    """Refuse sizes that no vector of this model can be cut to, as early as `dimension` is known."""
    for size in settings.matryoshka:
        if size < 1 or (dimension is not None and size > dimension):
            most = Message("the dimension") if dimension is None else dimension
            raise UnsupportedModel(
                "--matryoshka {size} is outside 1 to {most}", size=size, most=most
            )


# --- the precisions that are tried ----------------------------------------------------------------


def _attempts(settings: Settings, source: SourceModel) -> list[Settings]:
    """Return the settings of each export that is tried in turn: one, or several for "auto"."""
    if settings.precision != "auto":
        return [settings]
    # Graphs that others wrote are not quantised by row.
    possible = [each for each in TRIED if source.network is not None or each != "int8-rows"]
    return [replace(settings, precision=each) for each in possible]


def _first_accepted(
    attempts: Sequence[Settings],
    source: SourceModel,
    calibration_ids: Sequence[Ids],
    verification: "_Verification",
    progress: Callable[[str], None],
) -> tuple[Settings, Graphs, Verified, list[Trade]]:
    """Return the first export that verification accepts, and what each that was tried would give.

    A single attempt is not compared with others. Raises the DisagreesWithCheckpoint of the last one.
    """
    trades: list[Trade] = []
    for settings in attempts:
        graphs = build(source, calibration_ids, settings, progress)
        _check_sizes(settings, graphs.dimension)
        reference = served = _encoder(graphs.float_model, graphs)
        if graphs.served_model is not graphs.float_model:
            served = _encoder(graphs.served_model, graphs)
        verified = None
        try:
            verified = verification.verify(reference, served, settings, progress)
        except DisagreesWithCheckpoint:
            if settings is attempts[-1]:
                raise
        if len(attempts) > 1:
            size = graphs.served_model.size
            trades.append(verification.trade(reference, served, settings, size, verified))
        if verified is not None:
            return settings, graphs, verified, trades
    raise AssertionError("no attempt")


# --- verification ---------------------------------------------------------------------------------


class _Verification:
    """The texts that decide whether an artifact may be written."""

    def __init__(
        self, tokenizer: Tokenizer, verification: Sequence[str], monotony: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._labelled, self._ids = _verification_ids(tokenizer, verification)
        self._monotony = monotony

    def verify(
        self,
        reference: VectorEncoder,
        served: VectorEncoder,
        settings: Settings,
        progress: Callable[[str], None],
    ) -> Verified:
        """Measure the served graph against the float one, and compute the vectors of the self-test."""
        labelled, ids, longest = self._labelled, self._ids, self._tokenizer.rules.max_tokens
        agreement = verify(reference, served, labelled, ids, longest, settings.thresholds, progress)
        monotonous_agreement = check_agreement(
            reference,
            served,
            self._monotony,
            self._tokenizer.encode(self._monotony).ids,
            # Their mean says little: the texts are chosen for being hard.
            replace(settings.thresholds, mean=0.0),
        )
        return Verified(agreement, monotonous_agreement, _self_test(served, self._tokenizer))

    def trade(
        self,
        reference: VectorEncoder,
        served: VectorEncoder,
        settings: Settings,
        size: int,
        verified: Verified | None,
    ) -> Trade:
        """Return what a precision gives, accepted or not; size: bytes of its graph."""
        # Nothing is below these, so this measures and refuses nothing.
        anything = Thresholds(mean=-1, minimum=-1)
        agreement = (
            check_agreement(reference, served, self._labelled, self._ids, anything)
            if verified is None
            else verified.agreement
        )
        return Trade(
            settings.precision,
            size / 1e6,
            trade.measure_speed(reference, served, self._ids),
            agreement,
            refused=verified is None,
        )


def _encoder(graph: OnnxFile, graphs: Graphs) -> SessionEncoder:
    with graph.opened() as opened:
        return SessionEncoder(opened, graphs.packing, cpu_budget())


def _self_test(served: VectorEncoder, tokenizer: Tokenizer) -> list[SelfTest]:
    vectors = embed_each(served, tokenizer.encode(SELF_TEST_TEXTS).ids)
    return [
        SelfTest(text, [float(f"{value:.7g}") for value in vector])
        for text, vector in zip(SELF_TEST_TEXTS, vectors, strict=True)
    ]


# --- texts to token ids ---------------------------------------------------------------------------


def _calibration_ids(tokenizer: Tokenizer, calibration: Sequence[str]) -> list[Ids]:
    """Return token ids of the calibration texts, some as queries, thinned evenly to the limits."""
    ids = [*tokenizer.encode(calibration).ids]
    if tokenizer.rules.query_instruction:
        ids += tokenizer.encode(calibration[::QUERY_EVERY], "query").ids
    total = sum(map(len, ids))
    step = max(-(-total // MAX_CALIBRATION_TOKENS), -(-len(ids) // MAX_CALIBRATION_TEXTS))
    return ids[::step]


def _verification_ids(
    tokenizer: Tokenizer, verification: Sequence[str]
) -> tuple[list[str], list[Ids]]:
    """Return texts as a report should show them, and their token ids; some are queries."""
    labelled, ids = list(verification), [*tokenizer.encode(verification).ids]
    if tokenizer.rules.query_instruction:
        queries = verification[::QUERY_EVERY]
        labelled += [f"(query) {text}" for text in queries]
        ids += tokenizer.encode(queries, "query").ids
    return labelled, ids


# --- progress and report --------------------------------------------------------------------------


class _Progress:
    """A progress bar on standard error, hidden where that is not a terminal."""

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
    terminal: Terminal, out: Path, graphs: Graphs, agreement: Agreement, seconds: float
) -> None:
    size = graphs.served_model.size / 1e6
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
