"""The commands that index and search, and what all commands share, with the toy artifact."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server import VERSION
from server.cli import ingest, parser
from server.store.folder import DataFolder
from tests.support import office_files
from tests.support.commands import Commands, write_lines
from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT, command, environment
from tests.support.toys import toy_texts, write_toy_texts

HAN = re.compile(r"[\u4e00-\u9fff]")
SEED = (
    "今天天气很好，适合出去郊游。",
    "人工智能正在改变世界。",
    "LangChain 是一个强大的大模型编排工具。",
    "Python 是最受欢迎的编程语言之一。",
    "深圳是一个高速发展的城市。",
)


def hits(run: Commands, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("search", "--json", *arguments).out)["hits"]
    return found


def test_what_was_indexed_is_found(run: Commands, tmp_path: Path) -> None:
    texts = toy_texts(80)
    said = run("index", write_toy_texts(tmp_path / "texts.txt", 80)).out
    assert "added 80, unchanged 0" in said

    found = json.loads(run("search", texts[30], "--json", "--top-k", "2").out)
    assert found["query"] == texts[30]
    assert len(found["hits"]) == 2
    assert set(found["hits"][0]) == {"id", "score", "text", "title", "metadata", "part"}
    assert "1. similarity" in run("search", texts[30]).out
    assert "1. 相似度" in run("search", texts[30], locale="zh_CN.UTF-8").out


def test_hits_are_reranked(
    run: Commands, tmp_path: Path, toy_artifact: Path, scorer_artifact: Path
) -> None:
    run("index", write_toy_texts(tmp_path / "texts.txt", 80))
    query = toy_texts(80)[30]
    models = ("--model", str(toy_artifact), "--model", str(scorer_artifact))
    plain = hits(run, query, *models, "--top-k", "5")
    reranked = hits(run, query, *models, "--top-k", "2", "--rerank-top-n", "5")
    first, second = (hit["rerank_score"] for hit in reranked)
    assert first >= second
    assert {hit["id"] for hit in reranked} <= {hit["id"] for hit in plain}
    chinese = run("search", query, *models, "--rerank", locale="zh_CN.UTF-8").out
    assert chinese.startswith("1. 相关度 ")
    said = run("search", query, "--rerank", status=1).err
    assert "no reranker is loaded" in said and "--model" in said
    said = run("search", query, "--rerank", status=1, locale="zh_CN.UTF-8").err
    assert said.startswith("错误：没有加载重排序模型")


def test_reranker_alone_finds_by_words_and_says_what_else_needs(
    run: Commands, tmp_path: Path, scorer_artifact: Path
) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 20)
    run("index", path)
    alone, query = ("--model", str(scorer_artifact)), toy_texts(20)[3]
    assert "1. relevance" in run("search", query, *alone, "--mode", "lexical", "--rerank").out
    for asked in (("index", path), ("search", query), ("reindex",)):
        said = run(*asked, *alone, status=1).err
        assert "name an embedding model, too: --model FOLDER" in said
        said = run(*asked, *alone, status=1, locale="zh_CN.UTF-8").err
        assert said.startswith("错误：所有 --model 都不提供向量")


def test_indexing_again_embeds_nothing(run: Commands, tmp_path: Path) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 20)
    run("index", path)
    assert "added 0, unchanged 20" in run("index", path).out


def test_the_conversation_of_the_tutorial(
    shipped_artifact: Path, run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKWELL_MODEL", str(shipped_artifact))
    run("index", write_lines(tmp_path / "docs.txt", SEED))
    monkeypatch.setattr(sys, "stdin", io.StringIO("AI 能做哪些事?\nexit\n"))
    first, *_ = run("search", locale="zh_CN.UTF-8").out.splitlines()
    assert "1. 相似度" in first and SEED[1] in first


def test_titles_metadata_and_formats_are_read(run: Commands, tmp_path: Path) -> None:
    rows = ["text,title,year", "墨池,文房,2024", "砚台,,2020"]
    run("index", write_lines(tmp_path / "rows.csv", rows))
    (hit,) = hits(run, "x", "--filter", '{"year": {"$gte": 2021}}')
    assert (hit["text"], hit["title"], hit["metadata"]) == ("墨池", "文房", {"year": 2024})
    said = run("index", tmp_path / "rows.csv", "--types", "*=text", "--collection", "texts")
    assert "types that were found" not in said.err
    assert hits(run, "x", "--collection", "texts")[0]["metadata"]["year"] in ("2024", "2020")
    assert "no such column" in run.refused("index", tmp_path / "rows.csv", "--types", "text2=text")
    lines = [json.dumps({"id": "a", "text": "毛笔", "metadata": {"year": 2024}})]
    run(
        "index",
        write_lines(tmp_path / "lines", lines),
        "--format",
        "jsonl",
        "--collection",
        "lines",
    )
    (hit,) = hits(run, "x", "--filter", '{"year": {"$gte": 2000}}', "--collection", "lines")
    assert (hit["id"], hit["metadata"]) == ("a", {"year": 2024})


def test_what_was_assumed_of_a_file_is_reported_in_both_languages(
    run: Commands, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,year\n人工智能正在改变世界,2024\n,\n".encode("gb18030"))
    said = run("index", path).err
    assert f"read as gb18030, which was detected: {path}" in said
    assert (
        f"{path}: types that were found: year=number" in said and "blank rows left out: 1" in said
    )
    said = run("index", path, locale="zh_CN.UTF-8").err
    assert "识别出的列类型：year=number" in said and "自动检测为 gb18030 编码" in said
    path.write_bytes("text,year\n人工智能正在改变世界,2024\n乙".encode("gb18030"))
    assert "read as gb18030" in run("index", path, status=1).err


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1"])
def test_no_text_ends_a_command_at_a_terminal_that_is_not_utf_8(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    run("index", write_lines(tmp_path / "a.txt", ["墨池 café 😀"]))
    for arguments in (("search", "墨", "--json"), ("search", "墨"), ("search", "--help")):
        out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setenv("LC_ALL", "zh_CN.UTF-8")
            with contextlib.suppress(SystemExit):
                assert parser.main(arguments) == 0
        raw = out.detach()
        assert isinstance(raw, io.BytesIO) and raw.getvalue()
        if "--json" in arguments:
            (hit,) = json.loads(raw.getvalue().decode("ascii"))["hits"]
            assert hit["text"] == "墨池 café 😀"


def test_standard_input_is_read(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO("墨池\n砚台".encode("gb18030")), "ascii")
    monkeypatch.setattr(sys, "stdin", given)
    assert "added 2," in run("index", "-", "--encoding", "gb18030").out
    assert {hit["text"] for hit in hits(run, "墨")} == {"墨池", "砚台"}


def test_a_folder_is_read_file_by_file(run: Commands, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    write_lines(tmp_path / "notes" / "a.md", ["第一行", "第二行"])
    assert "added 1," in run("index", tmp_path / "notes").out
    assert hits(run, "x")[0]["text"].split() == ["第一行", "第二行"]


def test_long_documents_are_cut_as_asked(run: Commands, tmp_path: Path) -> None:
    long = write_lines(
        tmp_path / "long.txt", ["".join(f"{place}是一句话。" for place in range(40))]
    )
    run("index", long, "--collection", "whole", "--chunk-tokens", "0")
    assert hits(run, "x", "--collection", "whole")[0]["part"]["whole"]
    run("index", long, "--collection", "cut")
    assert not hits(run, "x", "--collection", "cut")[0]["part"]["whole"]
    run("index", long, "--collection", "short", "--chunk-tokens", "20", "--chunk-overlap", "5")
    part = hits(run, "x", "--collection", "short")[0]["part"]
    assert part["end"] - part["begin"] <= 20


def test_other_parts_than_the_collection_has_are_refused(run: Commands, tmp_path: Path) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 5)
    run("index", path, "--chunk-tokens", "20")
    assert "unchanged 5" in run("index", path).out
    assert "unchanged 5" in run("index", path, "--chunk-tokens", "20").out
    said = run.refused("index", path, "--chunk-tokens", "30")
    assert said.count("reindex --collection default --chunk-tokens 30") == 2
    assert "20 tokens that overlap by 2" in said and "重叠 2 个" in said
    said = run.refused("index", path, "--chunk-tokens", "7")
    assert "7 is outside 8 to 62" in said and "reindex" not in said


def test_a_wrong_row_is_named_with_the_way_to_go_on(run: Commands, tmp_path: Path) -> None:
    """Also a row of a sheet; a row without any value is none, and a whole file has no rest."""
    book, table = tmp_path / "a.xlsx", tmp_path / "a.csv"
    blank = [None, " \u3000"]
    book.write_bytes(
        office_files.xlsx({"S": [["text", "n"], ["a", 1], blank, [" ", 2], ["c", 3], blank, blank]})
    )
    write_lines(table, ["text,n", "a,1", ",", " ,2"])
    folder = tmp_path / "notes"
    folder.mkdir()
    write_lines(folder / "a.csv", ["name,n", "a,1"])
    way = "; --keep-going stores what is right and lists what is wrong"
    for source, place in ((book, "sheet S, row 4"), (table, "line 4")):
        assert f'{source}, {place}: "text" is empty{way}' in run.refused("index", source)
        said = run("index", source, "--keep-going", status=3)
        assert said.err.count("not stored: ") == 1
    assert way not in run.refused("index", folder)
    write_lines(folder / "b.csv", ["text,n", "a,1"])
    assert way in run.refused("index", folder)


def test_what_is_right_is_stored_and_what_is_wrong_is_listed(run: Commands, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    rows = [f'{{"text": "{n}", "year": {n}}}' if n % 2 else "{" for n in range(1, 61)]
    write_lines(notes / "a.jsonl", rows)
    write_lines(notes / "b.md", ["砚台"])
    (notes / "c.md").write_bytes(b"\xff")
    (notes / "d.jpg").write_bytes(b"x")
    report = tmp_path / "report.jsonl"
    asked = ("index", notes, "--keep-going", "--report", report)
    said = run(*asked, status=3)
    assert "added 31, unchanged 0" in said.out and "left out: 31" in said.out
    assert said.err.count("not stored: ") == 20 and f"{notes}/a.jsonl, line 2: not JSON" in said.err
    assert "and 11 more errors; --report FILE lists all" in said.err
    listed = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert [each["kind"] for each in listed] == ["left out"] + ["error"] * 31
    assert listed[0]["file"] == str(notes / "d.jpg")
    assert (listed[1]["file"], listed[1]["line"]) == (str(notes / "a.jsonl"), 2)
    assert "not JSON" in listed[1]["reason"] and "is not utf-8" in listed[-1]["reason"]
    assert run(*asked, "--verbose", status=3).err.count("not stored: ") == 31
    for path in notes.glob("[ac].*"):
        path.unlink()
    assert "unchanged 1" in run("index", notes, "--keep-going").out
    assert "cannot be written" in run.refused("index", notes, "--report", tmp_path)
    # As a shell writes `--report *.md`.
    refusal = run.refused("index", "--report", notes / "b.md", notes / "d.jpg")
    assert "b.md would overwrite a file that is no report" in refusal
    assert (notes / "b.md").read_text(encoding="utf-8") == "砚台\n"


def test_several_sources_have_one_summary(run: Commands, tmp_path: Path) -> None:
    names = [write_lines(tmp_path / name, [name]) for name in ("a.txt", "b.txt")]
    said = run("index", *names, tmp_path / "*.txt", "--exclude", "b.txt")
    assert said.out.startswith("added 2, unchanged 1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--chunk-tokens", "7"), "7 is outside 8 to 62"),
        (("--chunk-tokens", "63"), "63 is outside 8 to 62"),
        (("--chunk-tokens", "20", "--chunk-overlap", "11"), "11 is outside 0 to 10"),
        (("--chunk-overlap", "5"), "5 needs --chunk-tokens"),
        (("--chunk-tokens", "0", "--chunk-overlap", "0"), "0 needs --chunk-tokens"),
        (("--format", "rtf"), "rtf"),
        (("--encoding", "nonsense"), "nonsense"),
        (("--types", "year=number"), "--types, --text-column"),
        (("--text-column", "a"), "--types, --text-column"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    run: Commands, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 5)
    assert words in run.refused("index", path, *flags)


def test_collections_are_apart(run: Commands, tmp_path: Path) -> None:
    run("index", write_toy_texts(tmp_path / "texts.txt", 5), "--collection", "other")
    assert hits(run, "墨") == []
    assert "other" in run.refused("search", "墨", "--collection", "missing")


def test_prompt_of_an_empty_collection_says_what_to_do(run: Commands) -> None:
    DataFolder(run.data).close()
    said = run("search").err
    assert "python -m server index" in said and not HAN.search(said)


def test_file_that_is_not_there_is_named(run: Commands) -> None:
    assert run.refused("index", "no-such-file.txt").count("no-such-file.txt") == 2


def test_collection_of_another_model_is_refused(
    run: Commands, tmp_path: Path, toy_artifact: Path
) -> None:
    path = write_toy_texts(tmp_path / "texts.txt", 5)
    run("index", path)
    database = run.data / "collections" / "default" / "documents.sqlite3"
    content = database.read_bytes()
    fingerprint = json.loads((toy_artifact / "manifest.json").read_bytes())["fingerprint"].encode()
    assert content.count(fingerprint) == 1
    database.write_bytes(content.replace(fingerprint, b"0" * len(fingerprint)))
    for arguments in (("search", "墨"), ("index", str(path))):
        said = run.refused(*arguments)
        for word in ("0" * len(fingerprint), fingerprint.decode(), "reindex"):
            assert said.count(word) == 2
    assert len(hits(run, toy_texts(5)[0], "--mode", "lexical")) > 0
    run("reindex")
    assert len(hits(run, "墨")) == 3


def test_query_that_is_no_text_is_the_callers_error(run: Commands, tmp_path: Path) -> None:
    run("index", write_toy_texts(tmp_path / "texts.txt", 5))
    said = run("search", "\udcff", status=1).err
    assert "error: text 0 is not valid Unicode" in said


def test_filter_that_cannot_be_is_the_callers_error(run: Commands, tmp_path: Path) -> None:
    run("index", write_toy_texts(tmp_path / "texts.txt", 5))
    assert "$near" in run("search", "墨", "--filter", '{"a": {"$near": 1}}', status=1).err


def test_interruption_ends_with_its_own_status(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "index_documents", interrupted)
    said = run("index", write_toy_texts(tmp_path / "texts.txt", 5), status=130)
    assert said.err.endswith("stopped\n")


def test_interrupted_index_says_what_is_stored_and_resumes(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    texts = toy_texts(1000)
    flags = ("--model", toy_artifact, "--data", run.data, "--lanes", "1")
    process = subprocess.Popen(
        command("index", pipe, *flags),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        # A shell that starts this in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with pipe.open("w", encoding="utf-8") as file:
        file.write("".join(f"{text}\n" for text in texts))
        file.flush()
        process.send_signal(signal.SIGINT)
        # Also while it waits for more: the pipe is still open.
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    found = re.search(r"holds ([\d,]+) documents now; run the same command again", said.decode())
    assert found
    stored = int(found[1].replace(",", ""))
    path = write_lines(tmp_path / "texts.txt", texts)
    assert f"added {1000 - stored:,}, unchanged {stored:,}" in run("index", path).out


def test_reader_that_has_had_enough_is_no_error(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    run("index", write_toy_texts(tmp_path / "texts.txt", 300))
    flags = ("--model", toy_artifact, "--data", run.data, "--lanes", "1")
    process = subprocess.Popen(
        command("export", "-", *flags),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 1
    assert b"Traceback" not in said and b"error" not in said.lower()


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", "", "²"])
def test_number_of_hits_is_above_zero(run: Commands, number: str) -> None:
    check_usage(run, repr(number), "search", "墨", f"--top-k={number}")


@pytest.mark.parametrize("number", ["0", "many"])
def test_number_of_candidates_is_above_zero(run: Commands, number: str) -> None:
    check_usage(run, repr(number), "search", "墨", f"--rerank-top-n={number}")


@pytest.mark.parametrize("given", ["[]", "{", "1", ""])
def test_filter_is_a_json_object(run: Commands, given: str) -> None:
    check_usage(run, repr(given), "search", "墨", f"--filter={given}")


@pytest.mark.parametrize("types", ["", "a", "a=number,", "a=integer"])
def test_types_name_columns_and_types(run: Commands, types: str) -> None:
    check_usage(run, repr(types), "index", "x", f"--types={types}")


def test_the_flag_that_types_replace_is_named(run: Commands) -> None:
    check_usage(run, "give --types a=number,b=number", "index", "x", "--numbers", "a,b")
    check_usage(run, "give --types '*=text'", "index", "x", "--numbers", "none")


@pytest.mark.parametrize("number", ["-1", "many"])
def test_tokens_of_parts_are_a_whole_number(run: Commands, number: str) -> None:
    check_usage(run, repr(number), "index", "x", f"--chunk-tokens={number}")


def check_usage(run: Commands, words: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert words in run.capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--collection", "a", "--collection=b"),
        ("search", "--top-k", "3", "--top-k", "3"),
        ("serve", "--model", "a", "--model", "b", "--host", "127.0.0.1", "--host", "0.0.0.0"),
        ("key", "new", "a", "--scopes", "embed", "--scopes", "search"),
        ("export", "--pair", "a", "b", "--pair", "c", "d"),
    ],
)
def test_option_of_one_value_is_refused_twice(run: Commands, arguments: tuple[str, ...]) -> None:
    name = arguments[-2].partition("=")[0] if arguments[0] != "export" else "--pair"
    name = "--collection" if "--collection" in arguments else name
    check_usage(run, f"{name}: given twice", *arguments)


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{VERSION}\n"


def test_without_a_command_the_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser.main([])
    assert end.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


COMMANDS = (
    "serve",
    "index",
    "search",
    "export",
    "import",
    "backup",
    "restore",
    "check",
    "reindex",
    "collections",
    "collections list",
    "collections create",
    "collections remove",
    "collections rename",
    "collections alias",
    "words get",
    "words set",
    "documents",
    "documents list",
    "documents get",
    "delete",
    "key",
    "key new",
    "key list",
    "key remove",
    "doctor",
    "config",
)


def help_of(
    name: str, locale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setenv("LC_ALL", locale)
    with pytest.raises(SystemExit) as end:
        parser.main([*name.split(), "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_is_in_the_language_of_the_locale(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for locale in ("C.UTF-8", "zh_CN.UTF-8"):
        said = help_of(name, locale, monkeypatch, capsys)
        head, _, rest = said.partition("show this help message and exit")
        chinese = locale.startswith("zh")
        assert bool(HAN.search(head)) == chinese, "what the command does"
        for option in re.split(r"\n  (?=\S)", rest)[1:]:
            assert bool(HAN.search(option)) == chinese, option
            assert chinese or re.search(r" [a-z]{2,}", option), option
