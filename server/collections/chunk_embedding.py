"""Documents into chunks, and chunks into vectors: what a collection stores for each document."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from server.collections.chunking import cut, default_overlap
from server.errors import EmptyInput, shown
from server.inference.engine import Engine
from server.store.passages.outline import Outline
from server.store.passages.reading import read_as
from server.store.records import ChunkRules, Document, Span
from server.system.turns import Turns
from server.types import Vectors

# Texts that the engine gets at once, two such portions at a time: the lanes are never idle.
PORTION_TEXTS = 256
PORTIONS_AT_ONCE = 2
# Requests whose documents are chunked at once: 32 MB take 20 s, and writes need threads meanwhile.
CHUNKING = Turns(2)


# Tokens that the model reads of a default chunk, its special tokens included. A model that reads more
# would still give one vector for all of it, which says little about any passage.
DEFAULT_TOKENS = 512


def longest_chunk(engine: Engine) -> int:
    """Return how many tokens of a chunk the model reads, beside special tokens and instruction."""
    return max(1, engine.manifest.text.max_tokens - _overhead(engine))


def default_chunks(engine: Engine) -> ChunkRules:
    """Return the rules for collections that were made without any."""
    # A long instruction leaves half of it to the text, where the model reads as much.
    size = min(longest_chunk(engine), max(DEFAULT_TOKENS - _overhead(engine), DEFAULT_TOKENS // 2))
    return ChunkRules(size, default_overlap(size))


def _overhead(engine: Engine) -> int:
    """Return the tokens that the model reads besides a document's text."""
    return engine.model.tokenizer.length("", "document")


@dataclass(frozen=True, slots=True)
class Chunked:
    """A document, its chunks, and the text that is embedded for each.

    outline: of the document's text, None where it is not known.
    """

    document: Document
    spans: Sequence[Span]
    texts: Sequence[str]
    outline: Outline | None = None


async def chunk_documents(
    documents: Sequence[Document], rules: ChunkRules | None, engine: Engine
) -> list[Chunked]:
    """Chunk each document by the tokens of the engine's model; without rules they stay whole."""
    # A token has at least one character, so short texts need no counting.
    if rules is None or all(
        len(document.text) + len(document.title or "") < rules.size for document in documents
    ):
        return [_whole(document) for document in documents]
    async with CHUNKING.here():
        return await asyncio.to_thread(
            lambda: [_in_chunks(document, rules, engine.count_tokens) for document in documents]
        )


async def embed_chunks(chunked: Sequence[Chunked], engine: Engine) -> Vectors:
    """Embed the chunks of documents in order: float32 (B, D). Raises what `embed` raises.

    A chunk of which the model knows no token has no vector; the error names its document.
    """
    try:
        return await embed([text for each in chunked for text in each.texts], engine)
    except EmptyInput as error:
        if error.index is None:
            raise
        owners = [(each.document, text) for each in chunked for text in each.texts]
        document, text = owners[error.index]
        raise EmptyInput(
            f"document {shown(document.id)} has a passage of which the model knows no token, so it has no"
            f" vector: {shown(text)}; leave it out, or serve a model that reads it",
            param="documents",
        ) from None


async def embed(texts: Sequence[str], engine: Engine) -> Vectors:
    """Embed any number of texts as documents: float32 (B, D). Raises what `Engine.embed` raises."""
    limit = asyncio.Semaphore(PORTIONS_AT_ONCE)
    size = min(PORTION_TEXTS, engine.max_texts)

    async def portion(begin: int) -> Vectors:
        async with limit:
            try:
                return (await engine.embed(texts[begin : begin + size])).vectors
            except EmptyInput as error:
                # The index counts from the first of all texts.
                index = None if error.index is None else begin + error.index
                raise EmptyInput(error.message, param=error.param, index=index) from None

    tasks = [asyncio.ensure_future(portion(begin)) for begin in range(0, len(texts), size)]
    try:
        return np.concatenate(await asyncio.gather(*tasks))
    finally:
        # Where one failed or the caller was cancelled, the others are pointless.
        for task in tasks:
            task.cancel()


def _whole(document: Document) -> Chunked:
    text = read_as(document.title, "", document.text)
    return Chunked(document, [Span(0, len(document.text))], [text])


def _in_chunks(
    document: Document, rules: ChunkRules, count: Callable[[Sequence[str]], list[int]]
) -> Chunked:
    """Chunk a document; its title goes before every chunk and takes at most half of its room."""
    if document.title:
        title = count([document.title])[0]
        size = max(rules.size - title, rules.size // 2, 1)
        rules = ChunkRules(size, min(rules.overlap, size // 2))
    text = document.text
    spans, contexts, outline = cut(text, rules, count, document.title)
    if len(spans) == 1 and not text[: spans[0].begin].strip() and not text[spans[0].end :].strip():
        return _whole(document)
    texts = [
        read_as(document.title, context, text[begin:end])
        for (begin, end), context in zip(spans, contexts, strict=True)
    ]
    return Chunked(document, spans, texts, outline)
