"""The options of a search as flags and at the prompt: the replies and refusals are those of HTTP."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.cli.hits import for_people, show_hits
from server.cli.prompt import Prompt
from server.cli.searching.options import OPTIONS, shown_options, with_option
from server.cli.searching.reply import details_of, found_of
from server.cli.target import Found, Question, Rerank
from server.messages.terminal import Terminal
from tests.cli.test_prompt import HITS, Typed, Window
from tests.support.commands import Commands, commands, write_lines
from tests.support.processes import serving

ROWS = [
    {"id": "ai", "text": "人工智能正在改变世界。", "metadata": {"year": 2024, "kind": "科技"}},
    {
        "id": "city",
        "text": "深圳是一个高速发展的城市。",
        "metadata": {"year": 2020, "kind": "城市"},
    },
    {"id": "robot", "text": "机器人走进了深圳的工厂。", "metadata": {"year": 2022, "kind": "科技"}},
    {"id": "a,b", "text": "深圳的 labour law 与工厂 draft。", "metadata": {"year": 2021}},
]
Json = dict[str, Any]


def post(url: str, body: Json) -> None:
    httpx.post(url, json=body, trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def folders(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The address of a server, and a data folder with the same documents that no server uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INKWELL_API_KEY", raising=False)
        folder = tmp_path_factory.mktemp("searched")
        path = write_lines(folder / "rows.jsonl", [json.dumps(row) for row in ROWS])
        with serving(toy_artifact, folder) as server:
            for name, rows in (("default", ROWS), ("news", ROWS[:2])):
                if name != "default":
                    post(f"{server.url}/collections", {"name": name})
                post(f"{server.url}/collections/{name}/documents", {"documents": rows})
            yield server.url, folder / "here", path


@pytest.fixture
def both(
    folders: Any,
    toy_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Commands, str]:
    url, here, path = folders
    run = commands(toy_artifact, here, monkeypatch, capsys)
    if not here.exists():
        run("index", path)
        few = write_lines(path.parent / "few.jsonl", [json.dumps(row) for row in ROWS[:2]])
        run("index", few, "--collection", "news")
    return run, url


CASES: Sequence[tuple[Sequence[str], Json]] = [
    (["深圳", "--offset=1"], {"query": "深圳", "offset": 1}),
    (["深圳", "--cursor="], {"query": "深圳", "cursor": ""}),
    (["深圳", "--facets", "kind,year"], {"query": "深圳", "facets": ["kind", "year"]}),
    (
        ["深圳", "--group-by", "kind", "--group-by-hits=1"],
        {"query": "深圳", "group_by": {"key": "kind", "hits": 1}},
    ),
    (
        ["--sort", "kind,year:desc"],
        {"sort": {"by": [{"key": "kind"}, {"key": "year", "order": "desc"}]}},
    ),
    (
        ["深圳", "--sort=year:desc", "--sort-candidates=3"],
        {"query": "深圳", "sort": {"by": [{"key": "year", "order": "desc"}], "candidates": 3}},
    ),
    (
        ["深圳", "--diversity=0.3", "--diversity-candidates=4"],
        {"query": "深圳", "diversity": {"lambda": 0.3, "candidates": 4}},
    ),
    (["--like", "ai", "--unlike", "city"], {"like": {"ids": ["ai"], "unlike": ["city"]}}),
    (["--like", '["a,b"]'], {"like": {"ids": ["a,b"]}}),
    (
        ["工厂", "--mode=hybrid", "--like=ai", "--explain"],
        {"query": "工厂", "mode": "hybrid", "like": {"ids": ["ai"]}, "explain": True},
    ),
    (
        ["工厂", "--mode=hybrid", "--fusion=rrf", "--weights-dense=2", "--explain"],
        {
            **{"query": "工厂", "mode": "hybrid", "fusion": "rrf", "explain": True},
            "weights": {"dense": 2},
        },
    ),
    (["深圳", "--collections=default,news"], {"query": "深圳", "collections": ["default", "news"]}),
    (
        ["深圳", "--parts=2", "--include-document", "--include-vectors", "--highlight"],
        {
            **{"query": "深圳", "parts": 2, "include_document": True},
            **{"include_vectors": True, "highlight": True},
        },
    ),
    (["深圳", "--min-score=0.9"], {"query": "深圳", "min_score": 0.9}),
    (['"labour law" 工厂', "--mode=lexical"], {"query": '"labour law" 工厂', "mode": "lexical"}),
    (["深圳 -draft", "--mode=lexical"], {"query": "深圳 -draft", "mode": "lexical"}),
    # What HTTP refuses.
    (
        ["深圳", "--group-by=kind", "--offset=1"],
        {"query": "深圳", "offset": 1, "group_by": {"key": "kind"}},
    ),
    (["深圳", "--group-by-hits=1"], {"query": "深圳", "group_by": {"hits": 1}}),
    (["深圳", "--like=ai"], {"query": "深圳", "like": {"ids": ["ai"]}}),
    (["--like=none"], {"like": {"ids": ["none"]}}),
    (["--like=ai", "--mode=lexical"], {"like": {"ids": ["ai"]}, "mode": "lexical"}),
    (["深圳", "--offset=1", "--cursor="], {"query": "深圳", "offset": 1, "cursor": ""}),
    (["深圳", "--cursor=x"], {"query": "深圳", "cursor": "x"}),
    (["深圳", "--facets=$id"], {"query": "深圳", "facets": ["$id"]}),
    (["深圳", "--parts=21"], {"query": "深圳", "parts": 21}),
    (["深圳", "--diversity=2"], {"query": "深圳", "diversity": {"lambda": 2}}),
    (["--sort=year", "--explain"], {"sort": {"by": [{"key": "year"}]}, "explain": True}),
    (["--vector=[1, 2]"], {"vector": [1, 2]}),
    (
        ["深圳", "--collections=default,news", "--facets=kind"],
        {"query": "深圳", "collections": ["default", "news"], "facets": ["kind"]},
    ),
    (["深圳", "--collections=none"], {"query": "深圳", "collections": ["none"]}),
    (
        ["深圳", "--sort=year", "--diversity=0.5"],
        {"query": "深圳", "sort": {"by": [{"key": "year"}]}, "diversity": {"lambda": 0.5}},
    ),
]


@pytest.mark.parametrize(("flags", "body"), CASES, ids=lambda value: " ".join(value))
def test_replies_and_refusals_are_those_of_http(
    both: tuple[Commands, str], flags: Sequence[str], body: Json
) -> None:
    run, url = both
    answer = httpx.post(f"{url}/search", json={"top_k": 3, **body}, trust_env=False)
    reply = answer.json()
    asked = {"query": body["query"]} if "query" in body else {}
    for place in ((), ("--url", url)):
        if answer.status_code == 200:
            found = json.loads(run("search", *flags, "--json", *place).out)
            assert found.pop("query", None) == asked.get("query")
            if "next" in found:
                # Each place has a revision of its own.
                assert found.pop("next") and {**reply, "next": 0} == {**found, "next": 0}
            else:
                assert found == reply
            run("search", *flags, *place)
        else:
            said = run("search", *flags, "--json", *place, status=1)
            assert reply["error"]["message"] in said.err and not said.out


@pytest.mark.parametrize(
    "flag",
    ["--facets=", "--facets=[1]", "--facets=[", "--min-score=nan", "--min-score=x", "--vector={}"]
    + ["--fusion=sum", "--offset=-1", "--sort=", "--like=a,,b", '--vector=["1"]'],
)
def test_values_of_options_are_checked(run: Commands, flag: str) -> None:
    with pytest.raises(SystemExit) as end:
        run("search", "墨", flag)
    assert end.value.code == 2
    assert flag.partition("=")[2] in run.capsys.readouterr().err


def test_a_collection_and_several_are_refused_together(both: tuple[Commands, str]) -> None:
    run, url = both
    for place in ((), ("--url", url)):
        flags = ("--collection", "news", "--collections", "default,news")
        assert (
            "names no collection in its path" in run("search", "深", *flags, *place, status=1).err
        )


def test_replies_of_an_empty_collection_are_those_of_http(run: Commands, tmp_path: Path) -> None:
    run("index", write_lines(tmp_path / "a.txt", ["墨"]), "--collection", "other")
    flags = ("墨", "--group-by=kind", "--facets=kind", "--json")
    facet = {"key": "kind", "documents": 0, "values": [], "complete": True}
    assert json.loads(run("search", *flags).out) == {"query": "墨", "groups": [], "facets": [facet]}
    assert "outside 0 to 20" in run("search", "墨", "--parts=21", "--json", status=1).err
    assert json.loads(run("search", "墨", "--json").out) == {"query": "墨", "hits": []}
    assert "is empty" in run("search", "墨", "--explain").err


def test_pages_follow_each_other(both: tuple[Commands, str]) -> None:
    run, _ = both
    said = run("search", "深圳", "--top-k=3", "--cursor=")
    cursor = said.err.split()[-1]
    assert f"there are more: --cursor {cursor}" in said.err
    last = run("search", "深圳", "--top-k=3", "--cursor", cursor)
    assert last.out and "more" not in last.err
    assert run("search", "深圳", "--offset=3").out.startswith("4. similarity")


def test_people_read_groups_counts_and_explanations(both: tuple[Commands, str]) -> None:
    run, _ = both
    said = run("search", "工厂", "--group-by=kind", "--group-by-hits=1", "--facets=kind").out
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("[")] != []
    assert {"[kind: 科技]", "[kind: 城市]", "[kind: null]"} <= set(lines)
    assert lines[-1] == "kind: 科技 2, 城市 1"
    assert [line[:2] for line in lines if line[0].isdigit()] == ["1.", "2.", "3."]
    said = run("search", "工厂 汽车", "--mode=hybrid", "--top-k=1", "--explain").out
    head, fused, terms = said.splitlines()
    assert head.startswith("1. score ")
    assert fused.startswith("   meaning 0.") and "words 0." in fused
    assert fused.endswith("blend 1 : 1") and "+工厂" in terms
    said = run("search", "工厂", "--mode=hybrid", "--fusion=rrf", "--top-k=1", "--explain").out
    assert " · ranks " in said
    said = run(
        "search", "--sort=year:desc", "--top-k=1", "--include-vectors", "--include-document"
    ).out
    head, vector, text = said.splitlines()
    assert head == "1.  人工智能正在改变世界。" and vector.startswith("   vector of 32 numbers: ")
    assert text == "   人工智能正在改变世界。"
    said = run("search", "深圳", "--collections=default,news", locale="zh_CN.UTF-8").out
    assert "[default]" in said or "[news]" in said


def test_details_fit_the_terminal_and_cannot_steer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    part = {"text": "长" * 99 + "\x1b[2J", "score": 0.5, "begin": 0, "end": 99}
    term = {"term": "\x1b[2J", "parts": 1, "weight": 1.0, "matched": False}
    words = {"bm25": 1.0, "attainable": 2.0, "share": 0.5, "terms": [term] * 9}
    hit = {
        **{"id": "a", "score": None, "text": "墨", "title": None, "metadata": {}},
        **{"part": {"begin": 0, "end": 1, "whole": True}, "parts": [part], "document": "墨\x1b[2J"},
        "explanation": {"cosine": None, "words": words, "fusion": None},
    }
    facet = {"key": "k\x1b", "documents": 1, "values": [], "complete": True}
    value = {"value": "x\x1b" * 99, "documents": 1}
    many = {"key": "k", "documents": 9, "values": [value] * 9, "complete": False}
    found = found_of({"groups": [{"value": "\x1b[2J", "hits": [hit]}], "facets": [facet, many]})
    out = Window()
    show_hits(found, Question("墨", options={"group_by": {"key": "k"}}), Terminal("en", out, out))
    assert "\x1b" not in out.getvalue() and "no documents have it" in out.getvalue()
    assert all(len(line) <= 40 for line in out.getvalue().splitlines())


def test_a_terminal_marks_the_words_that_the_search_has_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question, out = Question("AI", mode="lexical", options={"offset": 0}), Window()
    terminal = Terminal("en", out, out, colour=True)
    asked = for_people(question, terminal)
    assert asked.options == {"offset": 0, "highlight": True}
    assert for_people(question, Terminal("en", io.StringIO(), out)) == question
    for other in (Question(""), Question("AI", 1000)):
        assert for_people(other, terminal) == other
    hit = {
        **{"id": "a", "score": 1.0, "text": "人工智能改变世界", "title": None, "metadata": {}},
        **{"part": {"begin": 0, "end": 8, "whole": True}, "highlights": [[0, 4]]},
    }
    show_hits(found_of({"hits": [hit]}), question, terminal)
    assert "\x1b[1;33m人工智能\x1b[0m改变世界" in out.getvalue()


# --- the prompt -------------------------------------------------------------------------------------


class Searching:
    """Two collections, and what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.names_asked: list[str] = []

    def search(self, name: str, question: Question) -> Found:
        self.asked.append(question)
        self.names_asked.append(name)
        found = Found(HITS)
        if "collections" not in question.options:
            return found
        hits = [{**hit, "collection": "other"} for hit in details_of(found)]
        return found_of({"hits": hits})

    def count(self, name: str) -> int:
        return 3

    def names(self) -> Sequence[str]:
        return ("main", "other")


def talk(*lines: str, question: Question | None = None) -> tuple[list[Question], str]:
    searching, err = Searching(), io.StringIO()
    terminal = Terminal("en", io.StringIO(), err)
    asked = Question("", mode="hybrid") if question is None else question
    Prompt(searching, "main", asked, terminal, Typed(*lines)).run()
    return searching.asked, err.getvalue()


def test_every_option_is_set_and_removed_at_the_prompt() -> None:
    values: Mapping[str, str] = {
        **{"offset": "2", "facets": "kind,year", "group-by": "kind", "group-by-hits": "2"},
        **{"sort": "year:desc", "sort-candidates": "9", "diversity": "0.5", "parts": "2"},
        **{"diversity-candidates": "9", "collections": "main,other", "min-score": "0.1"},
        **{"rerank-min-score": "0.1", "weights-dense": "2.0", "weights-lexical": "1.5"},
        "fusion": "rrf",
    }
    once = {"cursor", "like", "unlike", "vector", "highlight"}
    for option in OPTIONS:
        if option.name in once:
            assert f"there is no command /{option.name}" in talk(f"/{option.name} x")[1] or (
                option.name == "like"
            )
            continue
        value = values.get(option.name, "on")
        asked, err = talk(f"/{option.name} {value}", "墨", f"/{option.name} off", "砚")
        assert f"options: {option.name} {value}\n" in err
        first, second = asked
        assert list(shown_options(first.options)) == [f"{option.name} {value}"]
        assert second.options == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/explain maybe", "'maybe' is not possible: /explain on|off"),
        ("/offset x", "'x' is not possible: /offset N"),
        ("/fusion sum", "'sum' is not possible: /fusion blend|rrf"),
        ("/facets [", "'[' is not possible: /facets KEYS"),
        ("/next", "nothing has been searched yet"),
        ("/more 1", "nothing has been searched yet"),
    ],
)
def test_values_that_are_not_possible_change_nothing(line: str, words: str) -> None:
    asked, err = talk(line, "墨")
    assert words in err and asked[0].options == {}


def test_the_prompt_goes_on_and_finds_more_like_a_hit() -> None:
    rerank = Rerank("a")
    asked, err = talk(
        "/facets kind", "墨", "/next", "/next", "/more 1", "/more 8", "/next", "/like 池",
        question=Question("", 3, "hybrid", {"year": 1}, rerank),
    )  # fmt: skip
    first, second, third, like, further, other = asked
    facets = {"facets": ["kind"]}
    assert first == Question("墨", 3, "hybrid", {"year": 1}, rerank, facets)
    assert second == replace(first, options={**facets, "offset": 3})
    assert third == replace(first, options={**facets, "offset": 6})
    found = {**facets, "like": {"ids": ["池"]}}
    assert like == Question("", 3, "dense", {"year": 1}, None, found)
    assert further == replace(like, options={**found, "offset": 3})
    assert other == like
    assert "'1' is not possible: /more N" in err, "hit 1 is no hit of the last page"


def test_the_prompt_finds_more_like_a_hit_of_several_collections() -> None:
    searching, out = Searching(), io.StringIO()
    terminal = Terminal("en", out, out)
    typed = Typed("/collections main,other", "墨", "/next", "/more 4", "/next", "/like 池")
    Prompt(searching, "main", Question(""), terminal, typed).run()
    assert searching.names_asked == ["default", "default", "other", "other", "main"]
    several = {"collections": ["main", "other"]}
    assert [each.options.get("collections") for each in searching.asked[:2]] == [
        several["collections"]
    ] * 2
    assert not any("collections" in each.options for each in searching.asked[2:])
    assert "[other]" in out.getvalue()


def test_options_are_set_and_removed_in_their_place() -> None:
    options = with_option({}, ("group_by", "key"), "a")
    both = with_option(options, ("group_by", "hits"), 2)
    assert both == {"group_by": {"key": "a", "hits": 2}} and options == {"group_by": {"key": "a"}}
    one = with_option(both, ("group_by", "key"), None)
    assert one == {"group_by": {"hits": 2}} and with_option(one, ("group_by", "hits"), None) == {}
    assert with_option({}, ("offset",), 0) == {"offset": 0}
