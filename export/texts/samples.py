"""What an export reads and compares: the token ids to calibrate on and to verify on, by the model's task."""

from collections.abc import Sequence
from dataclasses import dataclass

from export.errors import BadTexts
from export.texts import pairs
from export.texts.monotony import Monotony
from export.texts.token_check import check_pair_tokens
from server.inference.tokenizer import Tokenizer
from server.types import Ids, Task

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


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts or pairs as a report should show them, and their token ids, in the same order."""

    labels: Sequence[str]
    ids: Sequence[Ids]


@dataclass(frozen=True, slots=True)
class Samples:
    """The token ids of an export.

    calibration: of the texts or pairs. verification: of others. monotonous: of verification texts of one or
    few tokens. candidates: how many of `verification` at a time are candidates of one query; 0 for
    texts. self_test: of the texts that the manifest states, with the other text of a pair or None.
    """

    calibration: Sequence[Ids]
    verification: Labelled
    monotonous: Labelled
    candidates: int
    self_test: Sequence[tuple[str, str | None, Ids]]


def samples_of(
    task: Task,
    tokenizer: Tokenizer,
    calibration: Sequence[str],
    verification: Sequence[str],
    monotony: Monotony,
) -> Samples:
    """Make the token ids of these texts, or of pairs of them where the model scores pairs."""
    if task == "score":
        return _of_pairs(tokenizer, calibration, verification, monotony)
    calibration_ids = _calibration_ids(tokenizer, calibration)
    monotonous = tokenizer.encode(monotony.verification).ids
    # Of a model that knows none of the usual ones, the first text that it knows.
    known = _labelled_known(*_verification_ids(tokenizer, verification))
    usual = zip(SELF_TEST_TEXTS, tokenizer.encode(SELF_TEST_TEXTS).ids, strict=True)
    tested = [(text, None, ids) for text, ids in usual if len(ids)]
    return Samples(
        _known([*calibration_ids, *tokenizer.encode(monotony.calibration).ids]),
        known,
        _labelled_known(monotony.verification, monotonous),
        0,
        tested or [(known.labels[0], None, known.ids[0])],
    )


def _known(ids: Sequence[Ids]) -> list[Ids]:
    """Return the texts that have tokens: without special tokens, a model may know nothing of one."""
    return [row for row in ids if len(row)]


def _labelled_known(labels: Sequence[str], ids: Sequence[Ids]) -> Labelled:
    kept = [label for label, row in zip(labels, ids, strict=True) if len(row)]
    known = _known(ids)
    if not known:
        raise BadTexts("the model knows no token of these texts: {text}", text=repr(labels[0][:60]))
    return Labelled(kept, known)


def _calibration_ids(tokenizer: Tokenizer, calibration: Sequence[str]) -> list[Ids]:
    """Return token ids of the calibration texts, some as queries, thinned evenly to the limits."""
    ids = [*tokenizer.encode(calibration).ids]
    if tokenizer.rules.query_instruction:
        ids += tokenizer.encode(calibration[::QUERY_EVERY], "query").ids
    return _thinned(ids)


def _thinned(ids: list[Ids]) -> list[Ids]:
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


# --- pairs ----------------------------------------------------------------------------------------


def _of_pairs(
    tokenizer: Tokenizer,
    calibration: Sequence[str],
    verification: Sequence[str],
    monotony: Monotony,
) -> Samples:
    to_calibrate = pairs.to_calibrate(calibration)
    monotonous = pairs.with_each(calibration, monotony.calibration)
    to_verify = pairs.to_verify(verification)
    check_pair_tokens(tokenizer, to_verify)
    ids = tokenizer.encode_pairs(to_calibrate).ids
    self_test = pairs.self_test(SELF_TEST_TEXTS)
    tested = tokenizer.encode_pairs(self_test).ids
    return Samples(
        [*_thinned([*ids]), *tokenizer.encode_pairs(monotonous).ids],
        _labelled(tokenizer, to_verify),
        _labelled(tokenizer, pairs.with_each(verification, monotony.verification)),
        pairs.CANDIDATES,
        [(*pair, row) for pair, row in zip(self_test, tested, strict=True)],
    )


def _labelled(tokenizer: Tokenizer, found: Sequence[pairs.Pair]) -> Labelled:
    labels = [f"{first[:28]} / {second}" for first, second in found]
    return Labelled(labels, tokenizer.encode_pairs(found).ids)
