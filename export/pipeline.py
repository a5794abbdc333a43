"""The steps of an export in order: read, calibrate and quantise, verify, write.

Each step is a module of its own; this one hands their results on and reports progress.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export import artifact
from export.build import Graphs, build, has_rows, n_steps
from export.errors import DisagreesWithCheckpoint, UnsupportedModel
from export.manifest import Texts, Verified, identity, manifest_of
from export.onnx_file import OnnxFile
from export.settings import TRIED, Settings
from export.source.model import SourceModel, locate, read_model
from export.source.text_preparation import open_tokenizer
from export.texts.monotony import monotonous
from export.texts.samples import Samples, samples_of
from export.texts.token_check import check_tokens
from export.texts.vocabulary import choose_texts
from export.verification import trade
from export.verification.order import check_order
from export.verification.remembering import RememberingEncoder
from export.verification.trade import Trade
from export.verification.verify import (
    LONGEST_VERIFIED,
    check_agreement,
    embed_each,
    result_of,
    verify,
)
from server.inference.comparison import COMPARISONS, Comparison
from server.inference.encoder import SessionEncoder, open_encoder
from server.inference.manifest import SelfTest
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.system.cpu import cpu_budget
from server.types import Encoder, Task

# How often `verify` calls its `progress`.
VERIFY_STEPS = 3
# Between lines of progress in a log.
LINE_EVERY_S = 5.0


def export(settings: Settings, terminal: Terminal | None = None) -> Path:
    """Make the artifact that `settings` describe and return its folder; raises ExportError.

    terminal: for the report, in English if it is None.
    """
    started = time.perf_counter()
    terminal = terminal or Terminal.of({})
    _check_sizes(settings, None)
    place = locate(settings, terminal.inform)
    out = settings.out or place.outputs / _folder_name(settings)
    artifact.recover(out)
    source = read_model(place, settings)
    # Refuses sizes for a model whose results are not cut.
    source.sizes(settings)
    _check_sizes(settings, source.dimension)
    rules = source.text_rules(settings)
    _advise(terminal, source, settings)
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
    samples = samples_of(
        source.task, tokenizer, calibration.lines, verification.lines, monotonous(tokenizer)
    )
    attempts = _attempts(settings, source)
    steps = sum(n_steps(source, attempt) + VERIFY_STEPS for attempt in attempts)
    with _Progress(steps, terminal) as progress:
        settings, graphs, verified, trades = _first_accepted(attempts, source, samples, progress)
        manifest = manifest_of(
            source, graphs, rules, verified, calibration, settings, settings_sha256
        )
        tokenizer_json = source.tokenizer_json.encode()
        artifact.write_artifact(out, graphs.served_model, tokenizer_json, manifest)
    trade.show(trades, terminal)
    _report(terminal, out, graphs, verified, source.task, time.perf_counter() - started)
    _report_text_rules(terminal, source, settings)
    if rules.max_tokens > LONGEST_VERIFIED:
        terminal.inform(
            "note: verified with texts of up to {verified} tokens; texts of up to {longest} tokens are read",
            verified=LONGEST_VERIFIED,
            longest=rules.max_tokens,
        )
    return out


def _folder_name(settings: Settings) -> str:
    """Return the name of an artifact's folder: onnx-int8, or onnx-sparse-int8 where a task was asked for."""
    task = "" if settings.task in (None, "dense") else f"{settings.task}-"
    return f"onnx-{task}{settings.precision}".replace("_", "-")


def _check_sizes(settings: Settings, dimension: int | None) -> None:
    """Refuse sizes that no vector of this model can be cut to, as early as `dimension` is known."""
    for size in settings.matryoshka or ():
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
    possible = [each for each in TRIED if has_rows(source) or each != "int8-rows"]
    return [replace(settings, precision=each) for each in possible]


def _first_accepted(
    attempts: Sequence[Settings],
    source: SourceModel,
    samples: Samples,
    progress: Callable[[str], None],
) -> tuple[Settings, Graphs, Verified, list[Trade]]:
    """Return the first export that verification accepts, and what each that was tried would give.

    A single attempt is not compared with others. Raises the DisagreesWithCheckpoint of the last one.
    """
    trades: list[Trade] = []
    graphs: Graphs | None = None
    reference: RememberingEncoder | None = None
    for settings in attempts:
        graphs = build(source, samples.calibration, settings, progress, graphs)
        _check_sizes(settings, graphs.dimension)
        if reference is None:
            reference = RememberingEncoder(_encoder(graphs.float_model, graphs, source))
        served = reference
        if graphs.served_model is not graphs.float_model:
            served = RememberingEncoder(_encoder(graphs.served_model, graphs, source))
        verified = None
        try:
            verified = _verify(source, reference, served, samples, settings, progress)
        except DisagreesWithCheckpoint:
            if settings is attempts[-1]:
                raise
        if len(attempts) > 1:
            size = graphs.served_model.size
            trades.append(_trade(source, reference, served, samples, settings, size, verified))
        if verified is not None:
            return settings, graphs, verified, trades
    raise AssertionError("no attempt")


# --- verification ---------------------------------------------------------------------------------


def _verify(
    source: SourceModel,
    reference: RememberingEncoder,
    served: RememberingEncoder,
    samples: Samples,
    settings: Settings,
    progress: Callable[[str], None],
) -> Verified:
    """Measure the served graph against the float one, and compute the results of the self-test."""
    thresholds, comparison = settings.thresholds_of(source.task), COMPARISONS[source.task]
    labels, ids = samples.verification.labels, samples.verification.ids
    longest = source.settings.max_tokens
    agreement = verify(
        reference,
        served,
        labels,
        ids,
        longest,
        thresholds,
        progress,
        comparison=comparison,
        instruction_offset=source.instruction_offset,
    )
    monotonous_agreement = check_agreement(
        reference,
        served,
        samples.monotonous.labels,
        samples.monotonous.ids,
        # Their mean says little: the texts are chosen for being hard.
        replace(thresholds, mean=0.0),
        comparison,
    )
    order = None
    if samples.candidates:
        found, expected = embed_each(served, ids), embed_each(reference, ids)
        order = check_order(found, expected, samples.candidates, thresholds.order)
    tests = _self_test(served, samples, comparison)
    return Verified(agreement, monotonous_agreement, tests, order)


def _trade(
    source: SourceModel,
    reference: RememberingEncoder,
    served: RememberingEncoder,
    samples: Samples,
    settings: Settings,
    size: int,
    verified: Verified | None,
) -> Trade:
    """Return what a precision gives, accepted (`verified`) or not; size: bytes of its graph."""
    labels, ids = samples.verification.labels, samples.verification.ids
    if verified is None:
        # Nothing is below these, so this measures and refuses nothing.
        anything = replace(settings.thresholds_of(source.task), mean=-np.inf, minimum=-np.inf)
        comparison = COMPARISONS[source.task]
        agreement = check_agreement(reference, served, labels, ids, anything, comparison)
    else:
        agreement = verified.agreement
    speed = trade.measure_speed(reference.encoder, served.encoder, ids)
    return Trade(settings.precision, size / 1e6, speed, agreement, refused=verified is None)


def _encoder(graph: OnnxFile, graphs: Graphs, source: SourceModel) -> SessionEncoder:
    with graph.opened() as opened:
        return open_encoder(opened, graphs.packing, cpu_budget(), source.form)


def _self_test(served: Encoder, samples: Samples, comparison: Comparison) -> list[SelfTest]:
    return [
        SelfTest(
            text,
            [float(f"{value:.7g}") for value in comparison.summary(result_of(served, ids))],
            second,
        )
        for text, second, ids in samples.self_test
    ]


# --- advice, progress and report ------------------------------------------------------------------


def _advise(terminal: Terminal, source: SourceModel, settings: Settings) -> None:
    """Print what an export leaves out, and why an instruction may be missing."""
    warning = source.instructions(settings).warning
    for note in (*source.notes, *([] if warning is None else [warning])):
        terminal.inform("note: {note}", note=note)


class _Progress:
    """A progress bar on standard error; where that is no terminal, a line every few seconds."""

    def __init__(
        self, steps: int, terminal: Terminal, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._terminal = terminal
        self._steps, self._done = steps, 0
        self._clock = clock
        self._shown = clock()
        unit = terminal.words("step")
        self._bar = tqdm(total=steps, unit=unit, file=terminal.err, leave=False, disable=None)

    def __enter__(self) -> Callable[[str], None]:
        return self._advance

    def _advance(self, step: str) -> None:
        self._bar.set_description(self._terminal.words(Message(step)))
        self._bar.update()
        self._done += 1
        if not self._terminal.err.isatty() and self._clock() - self._shown >= LINE_EVERY_S:
            self._shown = self._clock()
            self._terminal.inform(
                "exporting: step {done} of {steps}, {step}",
                done=self._done,
                steps=self._steps,
                step=Message(step),
            )

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _report(
    terminal: Terminal,
    out: Path,
    graphs: Graphs,
    verified: Verified,
    task: Task,
    seconds: float,
) -> None:
    size = graphs.served_model.size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    agreement, order = verified.agreement, verified.order
    if order is not None:
        terminal.say(
            "{out}: {size:.1f} MB; difference of scores to float32 on {pairs} pairs: mean {mean:.5f}, largest "
            "{largest:.4f}; order of candidates of {queries} queries (Kendall's tau): mean {order:.3f}, "
            "lowest {lowest:.3f}; took {seconds:.0f} s and up to {peak:.0f} MB of memory",
            out=out,
            size=size,
            mean=1 - agreement.mean,
            largest=1 - agreement.minimum,
            pairs=agreement.texts,
            queries=order.queries,
            order=order.mean,
            lowest=order.minimum,
            seconds=seconds,
            peak=peak,
        )
        return
    terminal.say(
        "{out}: {size:.1f} MB; {measure} to float32 on {texts} texts: mean {mean:.5f}, minimum "
        "{minimum:.4f}; took {seconds:.0f} s and up to {peak:.0f} MB of memory",
        out=out,
        size=size,
        measure=COMPARISONS[task].measure,
        mean=agreement.mean,
        minimum=agreement.minimum,
        texts=agreement.texts,
        seconds=seconds,
        peak=peak,
    )


def _report_text_rules(terminal: Terminal, source: SourceModel, settings: Settings) -> None:
    """Print instructions and shorter sizes, where the model has any, and where they come from."""
    chosen, shorter = source.instructions(settings), source.sizes(settings)
    if source.scoring is not None:
        if source.scoring.pair_prompt is not None:
            terminal.say(
                "instruction in the prompt of a pair: {text!r}; from {source}",
                text=chosen.query,
                source=chosen.source,
            )
    elif chosen.query or chosen.document:
        terminal.say(
            "before queries: {query!r}; before documents: {document!r}; from {source}",
            query=chosen.query,
            document=chosen.document,
            source=chosen.source,
        )
    if shorter.sizes:
        terminal.say(
            "shorter vectors: {sizes}; from {source}", sizes=shorter.sizes, source=shorter.source
        )
