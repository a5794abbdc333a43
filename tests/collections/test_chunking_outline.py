"""Chunks follow the outline of a document, leave noise out, and note how they were read."""

import asyncio
import base64
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.collections.chunk_embedding import chunk_documents
from server.collections.chunking import cut
from server.collections.registry import CollectionRegistry
from server.collections.writing.reading_note import NOTE, PLAIN
from server.config import Config
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.store.passages.outline import Outline
from server.store.passages.reading import READING
from server.store.records import ChunkRules, Document, Span
from server.telemetry.metrics import Metrics

IMAGE = base64.b64encode(random.Random(1).randbytes(1_800)).decode()


def characters(texts: Sequence[str]) -> list[int]:
    return list(map(len, texts))


def parts(text: str, size: int, overlap: int = 0) -> list[tuple[str, str]]:
    """Return of each chunk what is read before it, and its text."""
    spans, contexts, _ = cut(text, ChunkRules(size, overlap), characters)
    found = [text[begin:end] for begin, end in spans]
    assert all(len(c) + len(t) <= size for c, t in zip(contexts, found, strict=True))
    return list(zip(contexts, found, strict=True))


def test_articles_stay_whole_though_a_chunk_is_less_than_half_full() -> None:
    one, two = "第一条 甲甲。", f"第二条 {'乙乙乙乙，' * 5}丙。丙丙。"
    assert parts(f"{one}\n{two}", 40, 9) == [("", one), ("", two)]


def test_an_article_that_is_too_long_is_cut_before_its_items_and_keeps_its_number() -> None:
    text = f"第一条 有下列情形之一的：（一）{'甲' * 20}；（二）{'乙' * 20}；（三）{'丙' * 20}。"
    found = parts(text, 40)
    assert [part[:3] for _, part in found] == ["第一条", "（二）", "（三）"]
    assert [context for context, _ in found] == ["", "第一条\n", "第一条\n"]


def test_outer_headings_are_left_out_where_all_have_no_room() -> None:
    text = f"# {'长' * 30}\n## 短\n{'甲。' * 40}"
    assert parts(text, 60)[1][0] == "短\n"


def test_a_heading_and_the_header_of_a_table_stay_with_what_follows() -> None:
    rows = "".join(f"| {name} | {name}{name} |\n" for name in "abcdefgh")
    found = parts(f"{'甲' * 30}。\n# T\n| k | v |\n|---|---|\n{rows}", 60)
    assert found[0][1].endswith("。") and found[1][1].startswith("# T\n| k | v |\n|---|---|\n| a")
    assert found[2][0] == "T\n| k | v |\n"


def test_code_is_cut_between_functions_with_the_comments_above_them() -> None:
    code = "".join(
        f"# Of {n}.\ndef f{n}(a):\n    b = a + {n}\n\n    return b\n\n\n" for n in range(3)
    )
    found = parts(code, 50)
    assert [part.split("\n")[0] for _, part in found] == [f"# Of {n}." for n in range(3)]


def test_lines_of_wrapped_prose_end_no_paragraph() -> None:
    line = "用人单位自用工之日起即与劳动者建立劳动关系并且应当"
    text = "\n".join([line] * 6)
    spans, *_ = cut(text, ChunkRules(60, 0), characters)
    assert len(spans) == 3 or all(end - begin > 30 for begin, end in spans[:-1])


def test_noise_belongs_to_no_chunk() -> None:
    text = f"甲甲。\n![图](data:image/png;base64,{IMAGE})\n乙乙。"
    assert parts(text, 40) == [("", "甲甲。"), ("", "乙乙。")]
    # What is nothing else is kept.
    assert "".join(part for _, part in parts(IMAGE, 300)) == IMAGE


@pytest.mark.parametrize(
    "text",
    [
        "See Mr. Smith, e.g. at 9 a.m. on Jan. 5, p. 7, No. 5.| Then go.",
        "a. First thing.|\nb. Second thing.|\niv. Third.",
        "1.2. Scope of it.|\n(a) Next one.",
        "He cites Art. 5 and Messrs. Bird.| More",
    ],
)
def test_abbreviations_and_numbers_of_lists_end_no_sentence(text: str) -> None:
    from server.collections.cutting.splitting import split

    plain = text.replace("|", "")
    pieces, _ = split(plain, len(plain), characters)
    assert [plain[p.begin : p.end] for p in pieces] == [each.strip() for each in text.split("|")]


@pytest.mark.parametrize(
    "unit", ["# a\n", "```\n", "| a | b |\n", "第一条 ", "\n", "x", "（一）；"]
)
def test_hostile_texts_are_cut_in_time(unit: str) -> None:
    text = unit * (40_000 // len(unit))
    spans, contexts, _ = cut(text, ChunkRules(500, 60), characters)
    assert len(spans) < 500 and len(contexts) == len(spans)


class Counted(list[Span]):
    """A list that counts how often an item of it is read."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        self.reads += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Span]:
        for each in super().__iter__():
            self.reads += 1
            yield each


def test_code_between_many_images_is_looked_at_once() -> None:
    blocks = 100
    text = f"```\nx = 1;\n```\nA word.\n{IMAGE}\n" * blocks
    outline = Outline.of(text)
    outline.verbatim = counted = Counted(outline.verbatim)
    spans, *_ = cut(text, ChunkRules(500, 0), characters, outline=outline)
    assert len(counted) == blocks and len(spans) == blocks
    assert counted.reads < 20 * blocks


def test_what_is_embedded_has_the_headings_and_the_collection_notes_it(
    toy_model: Model, tmp_path: Path
) -> None:
    text = "# 甲\n" + "".join(f"## {n}\n{'墨池。' * 12}\n" for n in range(5))

    async def inside() -> None:
        metrics, config = Metrics(), Config(lanes=1)
        models = ModelRegistry([toy_model], config, metrics, asyncio.get_running_loop())
        registry = CollectionRegistry(DataFolder(tmp_path), models, config, metrics)
        live = await registry.create("main", ChunkRules(40, 0), models.default)
        (chunked,) = await chunk_documents(
            [Document("a", text, "题")], live.info.chunks, models.default
        )
        assert len(chunked.spans) > 3
        assert chunked.texts[-1].startswith("题\n甲")
        noted = live.collection.documents.noted
        await live.add([Document("b", "短")])
        assert noted(NOTE) is None
        await live.add([Document("a", text)])
        # What was written before there was a note may be of any version.
        assert json.loads(noted(NOTE) or "") == [PLAIN, READING]
        await (await registry.reindex("main", ChunkRules(40, 0), models.default)).task
        assert json.loads(live.collection.documents.noted(NOTE) or "") == [READING]
        await registry.close()
        await asyncio.to_thread(models.close)

    asyncio.run(inside())
