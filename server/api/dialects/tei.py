"""Text Embeddings Inference's form: /embed, /similarity, /tokenize, /decode, /rerank, /predict, /info, /ping.

`many_vectors` has /embed_all and /embed_sparse.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import orjson

from server import errors
from server.api.body import decoded, prepared
from server.api.info import info
from server.api.instruction import Instructed, instruction_of
from server.api.operation import Call, Dialect, Operation
from server.api.other_vectors import refuse_other_vectors
from server.api.replies import (
    NORMALIZED,
    Headers,
    Reply,
    error_reply_of,
    json_body,
    truncated_header,
)
from server.api.truncation import Direction, Truncation, truncation_from
from server.api.written import ON_LOOP
from server.clock import now
from server.config import Config
from server.errors import EmptyInput, InvalidRequest, ServerError
from server.inference.answers import Computed, Embedded, Scored, ranking
from server.inference.engine import pairs_with
from server.inference.registry import Choice
from server.inference.tokenizer import Token
from server.types import Pair, Vectors, unit

STATUS: Mapping[type[ServerError], int] = {
    errors.CallerError: 422,
    errors.EmptyInput: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.TaskNotServed: 424,
    errors.InferenceFailed: 424,
    errors.Overloaded: 429,
    errors.QuotaExceeded: 429,
    errors.NotReady: 503,
    errors.DatabaseAway: 503,
    errors.DatabaseBusy: 503,
    errors.ShuttingDown: 503,
    errors.DatabaseRefused: 502,
    errors.ServerFault: 500,
    errors.ServerError: 500,
}
KIND: Mapping[type[ServerError], str] = {
    errors.CallerError: "Validation",
    errors.EmptyInput: "Empty",
    errors.TaskNotServed: "Backend",
    errors.Overloaded: "Overloaded",
    errors.QuotaExceeded: "Overloaded",
    errors.RetryableError: "Unhealthy",
    errors.ServerError: "Backend",
}
# The name of the only label, as transformers gives it where the model has none.
LABEL = "LABEL_0"


class Reading(Instructed, kw_only=True):
    """Options for reading texts, the same on every path."""

    truncate: bool = True
    truncation_direction: Direction = "right"


class PairReading(msgspec.Struct, kw_only=True):
    """Options for reading pairs of texts.

    instruction: in place of the one in the model's prompt, for models that read one.
    """

    truncate: bool = True
    truncation_direction: Direction = "right"
    instruction: str = ""


class EmbedRequest(Reading, kw_only=True):
    """Texts to embed. parameters: refused, because the options stand beside `inputs` here."""

    inputs: str | list[str]
    normalize: bool = True
    dimensions: int | None = None
    model: str = ""
    parameters: Any = None


class Comparison(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class SimilarityRequest(msgspec.Struct):
    inputs: Comparison
    parameters: Reading | None = None
    model: str = ""


class TokenizeRequest(Instructed, kw_only=True):
    inputs: str | list[str]
    add_special_tokens: bool = True
    model: str = ""


TokenId = Annotated[int, msgspec.Meta(ge=0)]


class DecodeRequest(msgspec.Struct):
    ids: list[TokenId | list[TokenId]]
    skip_special_tokens: bool = True
    model: str = ""


class RerankRequest(PairReading, kw_only=True):
    """Texts to rank. raw_scores: the numbers that the network gives, instead of those from 0 to 1."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    model: str = ""


class Rank(msgspec.Struct):
    """A text: its place in the request, and its score. text: only where asked for."""

    index: int
    score: float
    text: str | msgspec.UnsetType = msgspec.UNSET


class PredictRequest(PairReading, kw_only=True):
    """A pair of texts, or a list of pairs. raw_scores: as in /rerank."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False
    model: str = ""


class Prediction(msgspec.Struct):
    score: float
    label: str


class Error(msgspec.Struct):
    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


def operations(config: Config, version: str) -> list[Operation]:
    """Return the operations on TEI's own paths. Those of `EMBED` and `RERANK` are shared."""

    async def information(call: Call) -> Reply:
        return Reply(json_body(info(call.models, config, version)))

    post, get = partial(Operation, TEI, "POST"), partial(Operation, TEI, "GET")
    return [
        post(
            "/similarity",
            similarity,
            "Similarity of a text to others",
            "embed",
            (SimilarityRequest,),
            (list[float],),
        ),
        post(
            "/tokenize",
            tokenize,
            "Tokens of texts, with their places",
            "embed",
            (TokenizeRequest,),
            (list[list[Token]],),
        ),
        post("/decode", decode_ids, "Texts of token ids", "embed", (DecodeRequest,), (list[str],)),
        post(
            "/predict",
            predict,
            "Scores of pairs of texts",
            "embed",
            (PredictRequest,),
            (list[Prediction], list[list[Prediction]]),
        ),
        # TEI's default task, and the path that SageMaker uses.
        *(EMBED._replace(path=path) for path in ("/", "/invocations")),
        get(
            "/info",
            information,
            "The first model, its limits, and all models",
            "key",
            response=(dict,),
        ),
        get("/ping", ping, "Check whether new requests are taken", "nothing", plain="text/plain"),
    ]


async def embed(call: Call) -> Reply:
    started = now()
    request = await decoded(call.body, EmbedRequest)
    refuse_other_vectors(request, {"parameters": ()})
    choice = call.models.choose(request.model)
    manifest = choice.engine.manifest
    texts = _listed(request.inputs)
    embedded = await _read(texts, request, choice, request.dimensions)
    vectors = embedded.vectors
    if request.normalize and not manifest.normalized:
        vectors = unit(vectors)
    headers = headers_for(sum(map(len, texts)), embedded, started)
    if manifest.normalized and not request.normalize:
        # As sentence-transformers does: the normalisation is a part of the model.
        headers.append(NORMALIZED)
    return Reply(orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


async def similarity(call: Call) -> Reply:
    """Return the cosines of one text's vector and those of the others, in their order."""
    started = now()
    request = await decoded(call.body, SimilarityRequest)
    source, sentences = request.inputs.source_sentence, request.inputs.sentences
    if not source:
        raise EmptyInput("source_sentence is empty")
    if not sentences:
        raise EmptyInput("no sentences: the list is empty")
    # The source comes last, so that an error counts the sentences as the caller does.
    texts = [*sentences, source]
    choice = call.models.choose(request.model)
    try:
        embedded = await _read(texts, request.parameters or Reading(), choice)
    except EmptyInput as error:
        if error.index == len(sentences):
            text = f"text {error.index}"
            raise EmptyInput(error.message.replace(text, "source_sentence", 1)) from None
        raise
    vectors = unit(embedded.vectors)
    body = orjson.dumps(vectors[:-1] @ vectors[-1], option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, headers=headers_for(sum(map(len, texts)), embedded, started))


async def tokenize(call: Call) -> Reply:
    """Return all tokens of each text, also those that the model would not read."""
    request = await decoded(call.body, TokenizeRequest)
    choice = call.models.find(request.model)
    tokens = await choice.engine.tokens(
        _listed(request.inputs),
        instruction_of(request, choice),
        special=request.add_special_tokens,
    )
    return Reply(json_body(tokens))


async def decode_ids(call: Call) -> Reply:
    """Return the text of each list of token ids; a single list of ids is a list of one."""
    request = await decoded(call.body, DecodeRequest)
    rows = _rows(request.ids)
    for index, row in enumerate(rows):
        if not row:
            raise EmptyInput(f"ids {index} is empty")
    engine = call.models.find(request.model).engine
    return Reply(json_body(await engine.decode(rows, skip_special=request.skip_special_tokens)))


async def rerank(call: Call) -> Reply:
    """Return the texts by their scores, best first."""
    started = now()
    request = await decoded(call.body, RerankRequest)
    pairs = pairs_with(request.query, request.texts)
    found = await _scored(call, request, pairs)
    scores = _shown_scores(found, raw=request.raw_scores)
    texts = request.texts if request.return_text else None
    # A reply that repeats the texts is about as long as its request.
    on_loop = len(call.body) if texts is None else ON_LOOP
    body = await prepared(call.body, lambda _: _ranks(found, scores, texts), on_loop)
    return Reply(body, headers=headers_for(_characters(pairs), found, started))


def _ranks(found: Scored, scores: Vectors, texts: list[str] | None) -> bytes:
    """Return the body of the reply. Texts are written one by one: each holds the interpreter lock."""
    parts: list[bytes] = []
    for index in ranking(found.logits):
        shown = {} if texts is None else {"text": texts[index]}
        each = {"index": index, **shown, "score": scores[index]}
        parts += (orjson.dumps(each, option=orjson.OPT_SERIALIZE_NUMPY), b",")
    return b"".join((b"[", *parts[:-1], b"]"))


async def predict(call: Call) -> Reply:
    """Return the score of each pair, as of a classifier with one label."""
    started = now()
    request = await decoded(call.body, PredictRequest)
    call.models.choose(request.model, "score")
    pairs, one = _pairs(request.inputs)
    found = await _scored(call, request, pairs)
    predictions = [
        [{"score": each, "label": LABEL}] for each in _shown_scores(found, raw=request.raw_scores)
    ]
    body = orjson.dumps(predictions[0] if one else predictions, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, headers=headers_for(_characters(pairs), found, started))


def _pairs(inputs: str | list[str | list[str]]) -> tuple[list[Pair], bool]:
    """Return the pairs, and whether the request is one pair instead of a list."""
    one = isinstance(inputs, str) or any(isinstance(each, str) for each in inputs)
    pairs: list[Pair] = []
    for index, each in enumerate([inputs] if one else inputs):
        match each:
            case [str(first), str(second)]:
                pairs.append((first, second))
            case _:
                raise InvalidRequest(
                    f"inputs[{index}] is no pair, and the model scores pairs of texts; send"
                    " [first, second], or a list of such pairs",
                    param="inputs",
                )
    return pairs, one


def _shown_scores(found: Scored, *, raw: bool) -> Vectors:
    """Return the scores from 0 to 1, which TEI gives for every model, or the raw ones."""
    return found.logits if raw else found.relevance


def _characters(pairs: list[Pair]) -> int:
    return sum(len(first) + len(second) for first, second in pairs)


async def ping(call: Call) -> Reply:
    """Reply with an empty body, as SageMaker expects."""
    call.models.check_ready()
    return Reply(b"", content_type=b"text/plain")


def _listed(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _rows(ids: list[int | list[int]]) -> list[list[int]]:
    rows = [each for each in ids if isinstance(each, list)]
    if rows and len(rows) < len(ids):
        raise InvalidRequest("ids mixes token ids and lists of token ids")
    return rows or [[each for each in ids if isinstance(each, int)]]


async def _read(
    texts: list[str], reading: Reading, choice: Choice, dimensions: int | None = None
) -> Embedded:
    truncation = _truncation(reading)
    return await choice.engine.embed(
        texts,
        instruction_of(reading, choice),
        truncate=truncation.allowed,
        keep=truncation.keep,
        dimensions=dimensions,
    )


async def _scored(call: Call, request: RerankRequest | PredictRequest, pairs: list[Pair]) -> Scored:
    truncation = _truncation(request)
    _, found = await call.models.score(
        request.model,
        pairs,
        truncate=truncation.allowed,
        keep=truncation.keep,
        instruction=request.instruction,
    )
    return found


def _truncation(reading: Reading | PairReading) -> Truncation:
    return truncation_from(reading.truncation_direction, allowed=reading.truncate)


def headers_for(characters: int, done: Embedded | Computed | Scored, started: float) -> Headers:
    """Return TEI's headers, with times in whole milliseconds, and the number of truncated texts."""
    total = _milliseconds(now() - started)
    times = done.times
    return [
        truncated_header(len(done.truncated)),
        (b"x-compute-type", b"cpu"),
        (b"x-compute-time", total),
        (b"x-compute-characters", b"%d" % characters),
        (b"x-compute-tokens", b"%d" % done.tokens),
        (b"x-total-time", total),
        (b"x-tokenization-time", _milliseconds(times.tokenize_s)),
        (b"x-queue-time", _milliseconds(times.queue_s)),
        (b"x-inference-time", _milliseconds(times.infer_s)),
    ]


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % (seconds * 1000)


def error_reply(error: ServerError) -> Reply:
    kind = next(KIND[base] for base in type(error).__mro__ if base in KIND)
    return error_reply_of(error, {"error": error.public, "error_type": kind}, STATUS)


TEI = Dialect("TEI", error_reply, Error)
EMBED = Operation(
    TEI,
    "POST",
    "/embed",
    embed,
    "Vectors of texts",
    needs="embed",
    request=(EmbedRequest,),
    response=(list[list[float]],),
)
RERANK = Operation(
    TEI,
    "POST",
    "/rerank",
    rerank,
    "Texts by their relevance to a query",
    needs="embed",
    request=(RerankRequest,),
    response=(list[Rank],),
)
