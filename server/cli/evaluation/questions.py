"""Questions with their right answers, read from a file of JSON lines, a table, or a folder in BEIR's layout.

A row has a question and an answer, which is the id or the text of a right document, or several of them: a
list in JSON, ids with ; or | between them in a table, or several rows with the same question. A relevance
above 1 makes an answer count more, and one of 0 makes it no answer.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from server.cli.evaluation.columns import Asked, roles_of
from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument, placed, shown, wrong
from server.sources.decoding import MOST_CHARACTERS, lines, shown_name
from server.sources.notes import Notes

# More questions hardly narrow an interval, and each is searched for three or four times.
MOST_QUESTIONS, MOST_ANSWERS = 10_000, 1000
MOST_RELEVANCE = 1000.0
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
QRELS = ("qrels.tsv", "qrels/test.tsv")
BETWEEN_IDS = re.compile(r"[;|；\n]")

Row = tuple[int, Mapping[str, Any]]  # its line, its values


@dataclass(frozen=True, slots=True)
class Question:
    """A question. place: where it stands. answers: values as written, with their relevance above 0."""

    place: str
    text: str
    answers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read questions. encoding: None to detect it."""

    columns: Asked
    encoding: str | None
    notes: Notes


def read_questions(path: Path, reading: Reading) -> list[Question]:
    """Return the questions of a file or of a folder in BEIR's layout; raises BadSettings."""
    found = _of_folder(path, reading) if path.is_dir() else _of_file(path, reading)
    if not found:
        raise BadSettings("{name} has no question with an answer", name=shown_name(path))
    return found


def _of_file(path: Path, reading: Reading) -> list[Question]:
    questions: dict[str, Question] = {}
    names: tuple[str, ...] | None = None
    for line, row in _rows(path, reading):
        with placed(path, line):
            if tuple(row) != names:
                names = tuple(row)
                roles = roles_of(names, reading.columns)
            text = _text(roles.question, row[roles.question])
            if text not in questions:
                _check_number(len(questions))
                questions[text] = Question(str(line), text)
            grade = row.get(roles.relevance) if roles.relevance else None
            for answer, relevance in _answers(roles.answer, row[roles.answer], grade):
                _add(questions[text], answer, relevance)
    return [question for question in questions.values() if question.answers]


def _rows(path: Path, reading: Reading) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix in JSON_LINES:
        yield from _objects(path, reading)
    elif suffix in DELIMITERS:
        yield from _table(path, reading, DELIMITERS[suffix])
    else:
        raise BadSettings(
            "{name} is no file of questions: give .jsonl, .csv or .tsv, or a folder with queries.jsonl "
            "and qrels.tsv",
            name=shown_name(path),
        )


def _objects(path: Path, reading: Reading) -> Iterator[Row]:
    for line, text, _ in lines(path, reading.encoding, reading.notes):
        if not text.strip():
            continue
        with placed(path, line):
            try:
                row = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError) as error:
                raise NotADocument("not JSON: {error}", error=error) from None
            if not isinstance(row, dict):
                raise NotADocument("{value} is not a JSON object", value=shown(row))
        yield line, row


def _table(path: Path, reading: Reading, delimiter: str) -> Iterator[Row]:
    ended = (f"{text}\n" for _, text, _ in lines(path, reading.encoding, reading.notes))
    csv.field_size_limit(MOST_CHARACTERS)  # as `tables` sets it
    reader = csv.reader(ended, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1
        with placed(path, line):
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise NotADocument(
                    "wrong quotes: {error}; a quote within quotes is written twice", error=error
                ) from None
            if row is None:
                return
            if names is None:
                names = [name.strip() for name in row]
                roles_of(names, reading.columns)
                continue
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(names):
                raise NotADocument(
                    "{found} fields, but the first row has {expected}",
                    found=len(row),
                    expected=len(names),
                )
        yield line, dict(zip(names, row, strict=True))


# --- BEIR -------------------------------------------------------------------------------------------


def _of_folder(folder: Path, reading: Reading) -> list[Question]:
    """Return the questions that have a right document: queries of other parts have none here."""
    qrels = next((folder / name for name in QRELS if (folder / name).is_file()), None)
    if qrels is None:
        raise BadSettings(
            "{name} has no {file}: a folder in BEIR's layout has queries.jsonl, and qrels.tsv or "
            "qrels/test.tsv",
            name=shown_name(folder),
            file="qrels.tsv",
        )
    questions: dict[str, Question] = {}
    for line, text, _ in lines(qrels, reading.encoding, reading.notes):
        if not text.strip():
            continue
        with placed(qrels, line):
            parts = text.split("\t")
            if len(parts) != 3:
                raise NotADocument(
                    "{found} fields with tabs between, not 3: query, document and relevance",
                    found=len(parts),
                )
            query, document, grade = parts
            # The first line has the names of the columns, unless it was left out.
            if line == 1 and not _is_number(grade):
                continue
            if query not in questions:
                _check_number(len(questions))
                questions[query] = Question(query, "")
            _add(questions[query], _text("document", document), _relevance(grade))
    texts = _texts_of(folder / "queries.jsonl", questions, reading)
    missing = [name for name in questions if name not in texts]
    if missing:
        raise BadSettings(
            "{name} has no query {query}, which {file} names",
            name=shown_name(folder / "queries.jsonl"),
            query=missing[0],
            file=qrels.name,
        )
    return [
        Question(name, texts[name], question.answers)
        for name, question in questions.items()
        if question.answers
    ]


def _texts_of(path: Path, wanted: Mapping[str, Question], reading: Reading) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line, row in _objects(path, reading):
        name = str(row.get("_id", ""))
        if name in wanted:
            with placed(path, line):
                texts[name] = _text("text", row.get("text"))
    return texts


# --- values -----------------------------------------------------------------------------------------


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise wrong(key, value, Message("a string"))
    if not value.strip():
        raise NotADocument('"{key}" is empty', key=key)
    value.encode()  # refuses lone surrogates
    return value.strip()


def _answers(key: str, value: Any, grade: Any) -> Iterator[tuple[str, float]]:
    """Yield every answer of a row: a value, a list of values, or an object of ids and grades."""
    if isinstance(value, dict):
        for answer, relevance in value.items():
            yield _text(key, answer), _relevance(relevance)
        return
    relevance = 1.0 if grade is None or grade == "" else _relevance(grade)
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, int) and not isinstance(each, bool):
            each = str(each)
        yield _text(key, each), relevance


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _relevance(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not 0 <= found <= MOST_RELEVANCE:
        raise NotADocument(
            "relevance {value} is not a number from 0 to {most:.0f}",
            value=shown(value),
            most=MOST_RELEVANCE,
        )
    return found


def _add(question: Question, answer: str, relevance: float) -> None:
    if relevance == 0:
        return
    if len(question.answers) == MOST_ANSWERS and answer not in question.answers:
        raise NotADocument("more than {most:,} answers to one question", most=MOST_ANSWERS)
    question.answers[answer] = max(relevance, question.answers.get(answer, 0.0))


def _check_number(number: int) -> None:
    if number == MOST_QUESTIONS:
        raise NotADocument(
            "more than {most:,} questions; a random part of them judges as well",
            most=MOST_QUESTIONS,
        )


def ids_in(answer: str) -> Sequence[str]:
    """Return the ids of a cell with several of them, () where it holds one value."""
    found = tuple(filter(None, map(str.strip, BETWEEN_IDS.split(answer))))
    return found if len(found) > 1 else ()
