"""`evaluate` prints what searches find, in this process and on a server, and counts apart what is not stored."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from server.cli.evaluation.comparison import differences, means
from server.cli.evaluation.judging import Judged, outcome
from server.cli.evaluation.questions import Question
from server.cli.evaluation.report import Report, show
from server.cli.evaluation.right import Right
from server.messages.terminal import Terminal
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving
from tests.support.toys import toy_texts

SVG = "{http://www.w3.org/2000/svg}"
TEXTS = toy_texts(130)
ROWS = [
    {"id": f"d/{number}", "text": text, "metadata": {"part": number % 2}}
    for number, text in enumerate(TEXTS)
]
# Questions share words with their documents, as people's do.
ASKED = [(f"{TEXTS[number]} 墨池", f"d/{number}") for number in range(0, 44, 2)]


@pytest.fixture(scope="module")
def served(
    toy_artifact: Path, scorer_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The data folder of a running server with a reranker."""
    folder = tmp_path_factory.mktemp("served")
    with serving(toy_artifact, folder, "--model", str(scorer_artifact)):
        yield folder / "data"


@pytest.fixture
def place(either: Commands, tmp_path: Path) -> Commands:
    either("index", write_lines(tmp_path / "rows.jsonl", [json.dumps(row) for row in ROWS]))
    return either


def write_questions(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
    return write_lines(path, lines)


def test_figures_are_those_of_searches(place: Commands, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.jsonl", ASKED)
    report = json.loads(place("evaluate", questions, "--json", "--verbose").out)
    assert (report["questions"], report["judged"], report["documents"]) == (22, 22, 130)
    server = "reranked" in report["modes"]
    for mode in ("dense", "lexical", "hybrid", *(["reranked"] if server else [])):
        by_hand = [expected(place, mode, *asked) for asked in ASKED[:3]]
        ranks = [next(iter(each["modes"][mode]["ranks"].values())) for each in report["outcomes"]]
        # Vectors differ by rounding where texts are embedded together, and two hits may be as near.
        assert all(abs(one - other) <= 1 for one, other in zip(ranks, by_hand, strict=False))
        found = report["modes"][mode]
        assert found["ndcg@10"] == pytest.approx(mean(1 / math.log2(r + 1) for r in within(ranks)))
        assert found["mrr@10"] == pytest.approx(mean(1 / r for r in within(ranks)))
        assert found["recall@10"] == pytest.approx(mean(r < math.inf for r in within(ranks)))
        assert found["recall@100"] == pytest.approx(mean(r > 0 for r in ranks))
        low, high = found["interval"]
        assert low <= found["ndcg@10"] <= high
    best = report["differences"][0]["better"]
    assert best == max(report["modes"], key=lambda mode: report["modes"][mode]["ndcg@10"])
    assert len(report["differences"]) == len(report["modes"]) - 1


def expected(place: Commands, mode: str, question: str, answer: str) -> int:
    """The rank of the right document among the hits of `search`, 0 where there is none."""
    flags = ("--mode", mode) if mode != "reranked" else ("--mode=hybrid", "--rerank-top-n", "100")
    said = place("search", question, "--json", "--top-k", "100", *flags).out
    ids = [hit["id"] for hit in json.loads(said)["hits"]]
    return ids.index(answer) + 1 if answer in ids else 0


def within(ranks: list[int]) -> list[float]:
    return [rank if 1 <= rank <= 10 else math.inf for rank in ranks]


def mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))


def test_answers_may_be_ids_texts_or_passages_and_what_is_not_stored_is_counted_apart(
    place: Commands, tmp_path: Path
) -> None:
    longest = max(range(130), key=lambda number: len(TEXTS[number]))
    passage = TEXTS[longest][1:-1]
    answers = ["d/3", "d/4; d/5", TEXTS[6], passage, "d/999", "no such text anywhere"]
    questions = write_questions(
        tmp_path / "q.jsonl", [(f"q{n}", answer) for n, answer in enumerate(answers)]
    )
    lines = (*questions.read_text().splitlines(), '{"question": "q0", "answer": "d/998"}')
    write_lines(questions, lines)
    report = json.loads(place("evaluate", questions, "--json", "--verbose").out)
    right = {each["question"]: set(each["modes"]["dense"]["ranks"]) for each in report["outcomes"]}
    assert right.pop("q3") >= {f"d/{longest}"}
    assert right == {"q0": {"d/3"}, "q1": {"d/4", "d/5"}, "q2": {"d/6"}}
    assert [each["missing"] for each in report["left_out"]] == [["d/999"], [answers[-1]]]
    assert [each["missing"] for each in report["partly_stored"]] == [["d/998"]]
    assert report["judged"] == 4 and report["differences"] == []
    said = place("evaluate", questions).out
    assert "4 of 6 questions judged" in said and "left out: 2 questions" in said
    assert "4 questions are too few to say which mode is better; ask at least 20" in said
    chinese = place("evaluate", questions, "--verbose", locale="zh_CN.UTF-8").out
    assert "未计入：2 个问题" in chinese and "答得最差的问题，按词语：" in chinese


def test_documents_with_the_text_of_an_answer_are_all_right(run: Commands, tmp_path: Path) -> None:
    rows = ["问题,答案", f"甲,{TEXTS[0]}", f"乙,{TEXTS[0]}", f"丙,{TEXTS[1]}"]
    table = write_lines(tmp_path / "faq.csv", rows)
    run("index", table)
    report = json.loads(run("evaluate", table, "--json", "--verbose").out)
    right = [len(each["modes"]["dense"]["ranks"]) for each in report["outcomes"]]
    assert right == [2, 2, 1]


def test_a_missing_data_folder_is_not_created(run: Commands, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.jsonl", ASKED[:1])
    run("evaluate", questions, status=2)
    assert not run.data.exists()


def test_nothing_stored_is_an_error(run: Commands, tmp_path: Path) -> None:
    run("index", write_lines(tmp_path / "rows.jsonl", [json.dumps(ROWS[0])]))
    questions = write_questions(tmp_path / "q.jsonl", [("q", "none")])
    assert "no question has a right document" in run.refused("evaluate", questions)
    assert "0 of 1 questions judged" in run("evaluate", questions, status=1).out
    assert "is no file of questions" in run.refused("evaluate", tmp_path / "q.txt")
    assert "one or several of" in refused_flag(run, questions)


def refused_flag(run: Commands, questions: Path) -> str:
    with pytest.raises(SystemExit):
        run("evaluate", questions, "--modes", "dense,fast")
    return run.capsys.readouterr().err


def test_modes_and_a_filter_are_those_asked_for(run: Commands, tmp_path: Path) -> None:
    run("index", write_lines(tmp_path / "rows.jsonl", [json.dumps(row) for row in ROWS]))
    questions = write_questions(tmp_path / "q.jsonl", ASKED[:2])
    flags = ("--modes", "lexical,dense", "--filter", '{"part": 1}', "--json")
    report = json.loads(run("evaluate", questions, *flags).out)
    assert list(report["modes"]) == ["dense", "lexical"]
    assert {found["recall@100"] for found in report["modes"].values()} == {0}, "all are of part 0"
    assert "no reranker is loaded" in run.refused("evaluate", questions, "--modes", "reranked")


def test_sizes_of_chunks_are_judged_and_the_collection_stays(
    place: Commands, tmp_path: Path
) -> None:
    questions, picture = write_questions(tmp_path / "q.jsonl", ASKED), tmp_path / "sizes.svg"
    before = place("documents", "list", "--json").out
    flags = ("--modes", "lexical,dense", "--chunk-tokens", "0,16")
    said = place("evaluate", questions, *flags, "--plot", picture)
    assert "whole documents:" in said.out and "chunks of 16 tokens:" in said.out
    assert re.search("(are better than|do not differ in)", said.out.splitlines()[-1])
    found = json.loads(place("evaluate", questions, *flags, "--json").out)["sizes"]
    assert [each["chunk_tokens"] for each in found] == [0, 16]
    assert [each["documents"] for each in found] == [130, 130]
    drawn = ElementTree.parse(picture).getroot()
    texts = ["".join(each.itertext()) for each in drawn.iter(f"{SVG}text")]
    for each in found:
        for figures in each["modes"].values():
            assert f"{figures['ndcg@10']:.3f}" in texts
    assert place("documents", "list", "--json").out == before


def test_documents_of_files_need_no_collection(run: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_lines(folder / "corpus.jsonl", [json.dumps({"_id": "a", "text": "the ink"})])
    write_lines(folder / "queries.jsonl", [json.dumps({"_id": "q", "text": "ink"})])
    write_lines(folder / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q\ta\t1"])
    report = json.loads(
        run("evaluate", folder, "--documents", folder / "corpus.jsonl", "--json").out
    )
    assert report["modes"]["lexical"]["ndcg@10"] == 1 and report["documents"] == 1
    assert not run.data.exists()


def test_what_cannot_be_meant_is_refused_before_anything_is_embedded(
    run: Commands, tmp_path: Path
) -> None:
    questions = write_questions(tmp_path / "q.jsonl", ASKED[:1])
    assert "is no .svg file" in run.refused("evaluate", questions, "--plot", questions)
    missing = tmp_path / "no" / "such.svg"
    assert "there is no folder" in run.refused("evaluate", questions, "--plot", missing)
    assert not run.data.exists()
    for sizes, said in (("12,x", "is not numbers of tokens"), (",".join("123456789"), "9 sizes")):
        with pytest.raises(SystemExit):
            run("evaluate", questions, "--chunk-tokens", sizes)
        assert said in run.capsys.readouterr().err


# --- sentences ---------------------------------------------------------------------------------------


def judged(number: int, worse: int) -> list[Judged]:
    """Questions that dense answers at rank 1, and lexical at rank 2 for `worse` of them."""
    right, found = {"a": 1.0}, []
    for place in range(number):
        other = ["x", "a"] if place < worse else ["a"]
        outcomes = {"dense": outcome(["a"], right), "lexical": outcome(other, right)}
        found.append(Judged(Question(str(place), "q", right), Right(right, ()), outcomes))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("number", "worse", "said"),
    [
        (40, 0, "dense and lexical do not differ on these 40 questions"),
        (40, 1, "dense and lexical do not differ on these 40 questions"),
        (
            40,
            20,
            "dense is better than lexical on these 40 questions: its nDCG@10 is higher by 0.185",
        ),
        (19, 19, "19 questions are too few to say which mode is better"),
    ],
)
def test_small_differences_are_not_read_as_more(
    number: int, worse: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = judged(number, worse)
    found = means(asked)
    report = Report("main", 10, asked, found, differences(asked, found))
    show(report, Terminal.of({"LC_ALL": "C.UTF-8"}), verbose=False)
    assert said in capsys.readouterr().out
