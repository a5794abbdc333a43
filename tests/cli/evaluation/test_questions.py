"""Questions are read from every layout, and what is wrong is named with its line."""

from pathlib import Path

import pytest

from server.cli.evaluation import questions
from server.cli.evaluation.columns import Asked
from server.cli.evaluation.questions import Question, Reading, ids_in, read_questions
from server.errors import BadSettings
from server.sources.notes import Notes


def read(path: Path, asked: Asked | None = None, encoding: str | None = None) -> list[Question]:
    return read_questions(path, Reading(asked or Asked(), encoding, Notes()))


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"question": "墨？", "answer": "a"}\n\n{"question": "砚？", "answer": "b"}\n'),
        ("a.csv", "问题,答案\n墨？,a\n,\n砚？,b\n"),
        ("a.tsv", "Query\tdoc_id\tanswer\n墨？\ta\t墨\n砚？\tb\t砚\n"),
        ("a.csv", "id,问题,编号\n1,墨？,a\n2,砚？,b\n".replace("id,", "no,")),
    ],
)
def test_columns_are_found_by_usual_names(tmp_path: Path, name: str, text: str) -> None:
    found = read(written(tmp_path, name, text))
    assert [(each.text, each.answers) for each in found] == [("墨？", {"a": 1}), ("砚？", {"b": 1})]


def test_a_table_of_excel_in_gb18030_is_read(tmp_path: Path) -> None:
    text = "问题,答案\n" + "今天适合做什么？,今天天气很好，适合出去郊游。\n".replace("，", "、") * 3
    (found,) = read(written(tmp_path, "a.csv", text, "gb18030"))
    assert found.answers == {"今天天气很好、适合出去郊游。": 1}


def test_several_answers_have_grades(tmp_path: Path) -> None:
    rows = written(tmp_path, "a.csv", "question,id,relevance\nq,a,2\nq,b,\nq,c,0\nr,d,0\n")
    assert [(each.place, each.answers) for each in read(rows)] == [("2", {"a": 2, "b": 1})]
    objects = (
        '{"q": "one", "ids": ["a", 7]}\n{"q": "two", "ids": {"a": 3, "b": 0.5}}\n'
        '{"q": "three", "ids": ["a"], "score": 2}\n'
    )
    assert [each.answers for each in read(written(tmp_path, "b.jsonl", objects))] == [
        {"a": 1, "7": 1},
        {"a": 3, "b": 0.5},
        {"a": 2},
    ]
    assert ids_in("a; b|c；d") == ("a", "b", "c", "d") and ids_in("a, b") == ()


@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_folder_of_beir_is_read(tmp_path: Path, qrels: str) -> None:
    queries = "".join(f'{{"_id": "q{n}", "text": "query {n}"}}\n' for n in range(3))
    written(tmp_path, "queries.jsonl", queries)
    written(tmp_path, qrels, "query-id\tcorpus-id\tscore\nq2\ta\t1\nq2\tb\t2\nq0\ta\t0\n")
    assert read(tmp_path) == [Question("q2", "query 2", {"a": 1, "b": 2})]
    # Without names of columns the first line is a judgement.
    written(tmp_path, qrels, "q0\ta\t1\nq2\tb\t2\n")
    assert [each.answers for each in read(tmp_path)] == [{"a": 1}, {"b": 2}]
    for wrong, why in (("q2\t\t1", '"document" is empty'), ("q2 0 a 1", "1 fields with tabs")):
        written(tmp_path, qrels, f"query-id\tcorpus-id\tscore\n{wrong}\n")
        with pytest.raises(BadSettings, match=f"line 2: {why}"):
            read(tmp_path)
    written(tmp_path, qrels, "query-id\tcorpus-id\tscore\nq9\ta\t1\n")
    with pytest.raises(BadSettings, match="has no query q9, which"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        (
            "a.csv",
            "question,body\nq,a\n",
            "a.csv, line 1: no column has a usual name of the answer",
        ),
        ("a.csv", "text,id\nq,a\n", "of the question, only: text, id; name it with --question-col"),
        ("a.csv", "question,id,answer\nq,1,a\n", "could be the answer: id, answer; name one"),
        ("a.csv", "question,id\nq\n", "a.csv, line 2: 1 fields, but the first row has 2"),
        ("a.csv", 'question,id\n"q,a\n', "line 2: wrong quotes"),
        ("a.csv", "question,id\n ,a\n", 'line 2: "question" is empty'),
        ("a.csv", "question,id,score\nq,a,much\n", 'line 2: relevance "much" is not a number'),
        ("a.csv", "question,id,score\nq,a,nan\n", "is not a number from 0 to 1000"),
        ("a.csv", "question,id,score\nq,a,0\n", "has no question with an answer"),
        ("a.csv", "", "has no question with an answer"),
        ("a.jsonl", "{\n", "a.jsonl, line 1: not JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: not JSON: maximum recursion"),
        ("a.jsonl", '{"question": "q", "id": {" ": 1}}\n', 'line 1: "id" is empty'),
        ("a.jsonl", "[]\n", r"line 1: \[\] is not a JSON object"),
        ("a.jsonl", '{"question": "q", "id": true}\n', 'line 1: "id" is true'),
        ("a.jsonl", '{"question": "\\ud800", "id": "a"}\n', "line 1: "),
        ("a.jsonl", '{"question": "q", "id": "a"}\n{"question": "q"}\n', "line 2: no column"),
        ("a.jsonl", "{}\n", "line 1: no column has a usual name of the question, only: none"),
        ("a.txt", "q\n", "is no file of questions"),
        ("none.csv", None, "cannot be read"),
        ("folder/x", "", "has no qrels.tsv"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str | None, error: str) -> None:
    path = tmp_path / name if text is None else written(tmp_path, name, text)
    with pytest.raises(BadSettings, match=error):
        read(path.parent if path.parent != tmp_path else path)


def test_columns_are_named_with_flags(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,body,answer,right\n1,q,x,a\n")
    (found,) = read(path, Asked("body", "right"))
    assert (found.text, found.answers) == ("q", {"a": 1})
    with pytest.raises(BadSettings, match="there is no column none, which --answer-column names"):
        read(path, Asked("body", "none"))


def test_numbers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST_QUESTIONS", 2)
    monkeypatch.setattr(questions, "MOST_ANSWERS", 2)
    rows = "".join(f"q{n},a\n" for n in range(3))
    with pytest.raises(BadSettings, match="line 4: more than 2 questions"):
        read(written(tmp_path, "a.csv", f"question,id\n{rows}"))
    with pytest.raises(BadSettings, match="line 4: more than 2 answers"):
        read(written(tmp_path, "a.csv", "question,id\nq,a\nq,b\nq,c\n"))
