"""OpenAI's embeddings and models, and the keys that other clients add on the same paths.

Clients of Jina, Voyage, NVIDIA, vLLM, Xinference and Azure ask at /v1/embeddings too.
"""

from functools import partial
from typing import Any, Literal

import msgspec
import orjson

from server.api.body import decoded
from server.api.instruction import Instructed, instruction_of
from server.api.operation import Call, Dialect, Handler, Operation
from server.api.other_vectors import Keys, refuse_other_vectors
from server.api.replies import (
    NORMALIZED,
    Reply,
    Usage,
    base64_rows,
    error_reply_of,
    json_body,
    truncated_header,
    usage_of,
)
from server.api.truncation import Truncation, truncation_of
from server.errors import (
    CallerError,
    InvalidRequest,
    RetryableError,
    RouteNotFound,
    ServerError,
    TooManyTexts,
)
from server.inference.answers import Embedded
from server.inference.registry import Choice
from server.inference.token_ids import TokenIds
from server.types import Task, Vectors, unit

# The limit of OpenAI's own API for one request. The server's own limit may be lower.
MAX_INPUTS = 2048
# Paths of the same requests: OpenAI's, those of base URLs without /v1, and Azure's.
ROOTS = ("/v1", "", "/openai/v1")
# Keys of Jina (late_chunking, return_multivector), vLLM (messages to endianness), llama.cpp
# (embd_normalize), Alibaba Cloud (instruct, text_type), Fireworks (prompt_template, return_logits),
# Xinference and others (instruction, prompt), NVIDIA and Infinity (modality).
REFUSED: Keys = {
    "late_chunking": (False,),
    "return_multivector": (False,),
    "messages": (),
    "chat_template": (),
    "add_special_tokens": (True,),
    "truncate_prompt_tokens": (-1,),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "embd_normalize": (),
    "instruct": (),
    "text_type": (),
    "prompt_template": (),
    "return_logits": (),
    "instruction": (),
    "prompt": (),
    "modality": ("text",),
}
DEPLOYMENT = "/openai/deployments/{model:path}/embeddings"


class EmbeddingsRequest(Instructed, kw_only=True):
    """Texts to embed. Keys that change no vector are ignored, as OpenAI's clients expect.

    input: strings, or Jina's objects with a text. output_dimension: Voyage's word for dimensions.
    embedding_type: Jina's for encoding_format. truncate: true, false, or NONE, START or END.
    truncation: Voyage's, true or false. normalized, or vLLM's normalize: false changes nothing where the
    model normalises. From late_chunking on: refused where they would change the vectors.
    """

    input: str | list[Any]
    model: str = ""
    encoding_format: Literal["float", "base64", ""] = ""
    embedding_type: Literal["float", "base64", ""] = ""
    output_dtype: Literal["float", ""] = ""
    dimensions: int | None = None
    output_dimension: int | None = None
    truncate: bool | str = True
    truncation: bool = True
    normalized: bool | None = None
    normalize: bool | None = None
    user: str | None = None
    late_chunking: bool = False
    return_multivector: bool = False
    messages: Any = None
    chat_template: Any = None
    add_special_tokens: Any = None
    truncate_prompt_tokens: Any = None
    embed_dtype: Any = None
    endianness: Any = None
    embd_normalize: Any = None
    instruct: Any = None
    text_type: Any = None
    prompt_template: Any = None
    return_logits: Any = None
    instruction: Any = None
    prompt: Any = None
    modality: Any = None


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsReply(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelEntry(msgspec.Struct):
    """A served model. created: always 0, because an artifact does not say when it was made.

    model_type, model_name: what Xinference's clients read. task: what the model gives. dimensions: of its
    vectors; absent where it gives scores or sparse weights.
    """

    id: str
    model_name: str
    task: Task
    model_type: Literal["embedding", "rerank"]
    dimensions: int | msgspec.UnsetType = msgspec.UNSET
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "local"


class ModelList(msgspec.Struct):
    data: list[ModelEntry]
    object: Literal["list"] = "list"


class Fault(msgspec.Struct):
    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class Error(msgspec.Struct):
    """OpenAI's error, and its message where clients of Jina and Xinference (detail) and NVIDIA look."""

    error: Fault
    message: str
    detail: str


def operations(token_ids: TokenIds) -> list[Operation]:
    """Return the operations. token_ids: turns token ids into texts, or refuses them."""
    speaking = partial(Operation, OPENAI)
    embeddings_on = partial(
        speaking,
        "POST",
        handler=_embeddings(token_ids),
        summary="Vectors of texts",
        needs="embed",
        request=(EmbeddingsRequest,),
        response=(EmbeddingsReply,),
    )
    get = partial(speaking, "GET", needs="key")
    found = [embeddings_on(f"{root}/embeddings") for root in ROOTS]
    found.append(embeddings_on(DEPLOYMENT))
    for root in ROOTS:
        found += [
            get(f"{root}/models", list_models, "Names of the served models", response=(ModelList,)),
            get(f"{root}/models/{{model:path}}", get_model, "One model", response=(ModelEntry,)),
        ]
    return found


def _embeddings(token_ids: TokenIds) -> Handler:
    async def embeddings(call: Call) -> Reply:
        request = await decoded(call.body, EmbeddingsRequest)
        refuse_other_vectors(request, REFUSED)
        # Azure's path names the model; the body may repeat it.
        choice = call.models.choose(call.scope.get("path_params", {}).get("model") or request.model)
        texts = await _texts(request.input, token_ids, choice)
        truncation = _truncation(request)
        embedded = await choice.engine.embed(
            texts,
            instruction_of(request, choice),
            truncate=truncation.allowed,
            keep=truncation.keep,
            dimensions=_either(request, "dimensions", "output_dimension"),
        )
        return _reply(request, choice, embedded)

    return embeddings


def _reply(request: EmbeddingsRequest, choice: Choice, embedded: Embedded) -> Reply:
    vectors, headers = embedded.vectors, [truncated_header(len(embedded.truncated))]
    asked, normalizes = (
        _either(request, "normalized", "normalize"),
        choice.engine.manifest.normalized,
    )
    if asked and not normalizes:
        vectors = unit(vectors)
    elif asked is False and normalizes:
        headers.append(NORMALIZED)
    usage = usage_of(embedded.tokens)
    data = [
        {"object": "embedding", "index": index, "embedding": row}
        for index, row in enumerate(_rows(vectors, request))
    ]
    body = {"object": "list", "data": data, "model": choice.name, "usage": usage}
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


def _rows(vectors: Vectors, request: EmbeddingsRequest) -> list[Any]:
    given = {request.encoding_format, request.embedding_type} - {""}
    if len(given) > 1:
        raise InvalidRequest(
            "encoding_format and embedding_type contradict each other; give one of them",
            param="encoding_format",
        )
    return base64_rows(vectors) if given == {"base64"} else list(vectors)


def _either(request: EmbeddingsRequest, key: str, other_key: str) -> Any:
    """Return the value of two keys that mean the same; None where neither is given."""
    one, other = getattr(request, key), getattr(request, other_key)
    if one is not None and other is not None and one != other:
        raise InvalidRequest(
            f"{key} {one} and {other_key} {other} contradict each other; give one of them",
            param=key,
        )
    return other if one is None else one


def _truncation(request: EmbeddingsRequest) -> Truncation:
    found = truncation_of(request.truncate)
    return found if request.truncation else Truncation(allowed=False)


async def _texts(given: str | list[Any], token_ids: TokenIds, choice: Choice) -> list[str]:
    """Return the request's texts; token ids become texts, or are refused."""
    if isinstance(given, str):
        return [given]
    if given and _is_id(given[0]):
        return await token_ids.texts([given], choice.engine)
    if len(given) > MAX_INPUTS:
        raise TooManyTexts(
            f"input has {len(given)} texts, at most {MAX_INPUTS} are allowed", param="input"
        )
    if given and isinstance(given[0], list):
        return await token_ids.texts(given, choice.engine)
    return [_text(index, each) for index, each in enumerate(given)]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(index: int, given: Any) -> str:
    if isinstance(given, dict) and given.keys() == {"text"}:
        given = given["text"]
    if not isinstance(given, str):
        raise InvalidRequest(
            f"input[{index}] must be a string, or an object with only a text", param="input"
        )
    return given


async def list_models(call: Call) -> Reply:
    return Reply(json_body(ModelList([_entry(call, name) for name in call.models.all_listed])))


async def get_model(call: Call) -> Reply:
    name = call.scope["path_params"]["model"].rstrip("/")
    if not name:
        raise RouteNotFound(f"no such path: {call.scope['path']}")
    return Reply(json_body(_entry(call, name)))


def _entry(call: Call, name: str) -> ModelEntry:
    choice = call.models.find(name)
    manifest = choice.engine.manifest
    if manifest.task == "score":
        return ModelEntry(choice.name, choice.name, manifest.task, "rerank")
    if manifest.task == "sparse":
        return ModelEntry(choice.name, choice.name, manifest.task, "embedding")
    return ModelEntry(choice.name, choice.name, manifest.task, "embedding", manifest.dimension)


def error_reply(error: ServerError) -> Reply:
    """Return an error in OpenAI's form, always with all four keys: its clients need them."""
    kind: Literal["invalid_request_error", "rate_limit_error", "server_error"] = "server_error"
    if isinstance(error, CallerError):
        kind = "invalid_request_error"
    elif isinstance(error, RetryableError):
        kind = "rate_limit_error"
    param = error.param if isinstance(error, CallerError) else None
    said = error.public
    return error_reply_of(error, Error(Fault(said, kind, param, error.code), said, said))


OPENAI = Dialect("OpenAI", error_reply, Error)
