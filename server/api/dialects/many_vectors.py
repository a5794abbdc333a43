"""Text Embeddings Inference's form of more than one vector a text: /embed_all and /embed_sparse.

A reply of token vectors may be as large as any: 512 tokens of 1,024 numbers are 6 MB of JSON. So its size is
bounded by the tokens, before anything is computed, and a large one is written on a thread.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from server.api.body import decoded, off_loop
from server.api.instruction import Instructed, instruction_of
from server.api.operation import Call, Dialect, Handler, Operation
from server.api.replies import Headers, Reply
from server.api.truncation import Direction, truncation_from
from server.api.written import ON_LOOP
from server.clock import now
from server.errors import RequestTooLarge
from server.inference.answers import Computed, check_finite
from server.inference.engine import Engine
from server.inference.results import SparseWeights
from server.types import Task, Tokens, Vectors

# Bytes of a number with its comma, such as -0.012345678, and of a word with its weight: at most these many, but
# for numbers as small as 1e-5, which have an exponent.
NUMBER_BYTES, WORD_BYTES = 13, 44
# Numbers that are written at once: the interpreter lock is held for less than a millisecond.
WRITTEN_AT_ONCE = 16_384


# Makes the headers of a reply from the characters of the texts, what was computed, and when it was begun.
HeadersFor = Callable[[int, Computed, float], Headers]


class Request(Instructed, kw_only=True):
    """Texts to read."""

    inputs: str | list[str]
    truncate: bool = True
    truncation_direction: Direction = "right"
    model: str = ""


class WordWeight(msgspec.Struct):
    """The weight of a word. index: its token id."""

    index: int
    value: float


Compute = Callable[[Call, Request, list[str]], Awaitable[tuple[Computed, bytes]]]
Admit = Callable[[Engine, Tokens], None]


def operations(tei: Dialect, headers_for: HeadersFor) -> list[Operation]:
    post = partial(Operation, tei, "POST")
    return [
        post(
            "/embed_all",
            _replying(_token_vectors, headers_for),
            "Vectors of the tokens of texts",
            "embed",
            (Request,),
            (list[list[list[float]]],),
        ),
        post(
            "/embed_sparse",
            _replying(_sparse_weights, headers_for),
            "Weights of the words of texts",
            "embed",
            (Request,),
            (list[list[WordWeight]],),
        ),
    ]


def _replying(compute: Compute, headers_for: HeadersFor) -> Handler:
    async def handle(call: Call) -> Reply:
        started = now()
        request = await decoded(call.body, Request)
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        found, body = await compute(call, request, texts)
        return Reply(body, headers=headers_for(sum(map(len, texts)), found, started))

    return handle


async def _token_vectors(call: Call, request: Request, texts: list[str]) -> tuple[Computed, bytes]:
    """Return the vectors of each text's tokens, in their order."""
    found = await _computed(call, request, texts, "token_vectors", _check_tokens)
    vectors: Sequence[Vectors] = found.results
    size = sum(each.size for each in vectors) * NUMBER_BYTES
    return found, await _written(size, lambda: _joined(map(_vectors_json, vectors)))


def _check_tokens(engine: Engine, tokens: Tokens) -> None:
    """Raise RequestTooLarge where the vectors of so many tokens make too large a reply."""
    width, most = engine.manifest.dimension, engine.max_reply_bytes
    if tokens.count * width * NUMBER_BYTES > most:
        raise RequestTooLarge(
            f"a vector of {width} numbers for each of {tokens.count} tokens makes too large a reply;"
            f" send at most {most // (width * NUMBER_BYTES)} tokens at once, or start the server with"
            " a larger --max-reply-bytes"
        )


async def _sparse_weights(call: Call, request: Request, texts: list[str]) -> tuple[Computed, bytes]:
    """Return the words of each text that have a weight, by token id."""
    found = await _computed(call, request, texts, "sparse", lambda engine, tokens: None)
    weights: Sequence[SparseWeights] = found.results
    words, most = sum(len(each.ids) for each in weights), call.models.engines[0].max_reply_bytes
    if words * WORD_BYTES > most:
        raise RequestTooLarge(
            f"the texts have {words} words with a weight, too many for one reply; send fewer texts at once,"
            " or start the server with a larger --max-reply-bytes"
        )
    return found, await _written(words * WORD_BYTES, lambda: _joined(map(_weights_json, weights)))


async def _computed(
    call: Call, request: Request, texts: list[str], task: Task, admit: Admit
) -> Computed:
    """Return the results of a request's texts. admit: see `Engine.compute_texts`."""
    choice = call.models.choose(request.model, task)
    truncation = truncation_from(request.truncation_direction, allowed=request.truncate)
    choice.engine.check(texts)
    return await choice.engine.compute_texts(
        texts,
        instruction_of(request, choice),
        truncate=truncation.allowed,
        keep=truncation.keep,
        admit=partial(admit, choice.engine),
    )


async def _written(size: int, write: Callable[[], bytes]) -> bytes:
    return write() if size <= ON_LOOP else await off_loop(write)


def _joined(parts: Iterator[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"


def _vectors_json(vectors: Vectors) -> bytes:
    """Return one text's vectors as JSON; in parts, as each holds the interpreter lock."""
    check_finite(vectors)
    step = max(1, WRITTEN_AT_ONCE // vectors.shape[1])
    parts = (vectors[first : first + step] for first in range(0, len(vectors), step))
    return _joined(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for part in parts)


def _weights_json(weights: SparseWeights) -> bytes:
    check_finite(weights.weights)
    # As float32 and not as Python's floats: these have more digits.
    values: list[Any] = list(weights.weights)
    words = zip(weights.ids.tolist(), values, strict=True)
    listed = [{"index": word, "value": value} for word, value in words]
    return orjson.dumps(listed, option=orjson.OPT_SERIALIZE_NUMPY)
