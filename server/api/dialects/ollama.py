"""Ollama's routes for embeddings, and those that its clients ask first: models and version."""

from functools import partial
from typing import Any

import msgspec
import orjson

from server.api.body import decoded
from server.api.instruction import Instructed, instruction_of
from server.api.operation import Call, Dialect, Operation
from server.api.other_vectors import Keys, refuse_other_vectors
from server.api.replies import Reply, error_reply_of, json_body, truncated_header
from server.clock import now
from server.errors import ModelNotFound, ServerError, TextTooLong
from server.inference.manifest import MODEL_FILE, Manifest
from server.inference.registry import Choice

# The release of Ollama whose form these routes have. Clients compare it: Open WebUI needs 0.1.16, Copilot
# 0.6.4, and `dimensions` came later than both. Numbers and dots only, or Open WebUI cannot read it.
SPOKEN = "0.12.6"
# At "/" most clients check the status, some the last three words.
HOME = b"Inkwell, an embedding server. To clients of Ollama it says: Ollama is running\n"
# Clients read these as times. An artifact does not say when it was made, and no model is ever unloaded.
NEVER, FOREVER = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"

# On the older route, which never had them. Texts are cut there, and vectors are whole.
REFUSED: Keys = {"truncate": (True,), "dimensions": ()}


class EmbedRequest(Instructed, kw_only=True):
    """Texts to embed; keys of `Instructed` are not Ollama's."""

    model: str = ""
    input: str | list[str] = msgspec.field(default_factory=list)
    truncate: bool = True
    dimensions: int | None = None


class EmbedReply(msgspec.Struct):
    """Vectors. Durations are nanoseconds; load_duration is 0, because a served model is loaded already."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class PromptRequest(Instructed, kw_only=True):
    """A text to embed. truncate, dimensions: keys of the other route, refused here."""

    model: str = ""
    prompt: str = ""
    truncate: Any = None
    dimensions: Any = None


class PromptReply(msgspec.Struct):
    embedding: list[float]


class Details(msgspec.Struct):
    family: str
    families: list[str]
    quantization_level: str
    format: str = "onnx"
    parameter_size: str = ""


class Tag(msgspec.Struct):
    """A served model. digest: SHA-256 of the network's file. size and parameter_size are not known."""

    name: str
    model: str
    digest: str
    details: Details
    context_length: int
    size: int = 0
    size_vram: int = 0
    modified_at: str = NEVER
    expires_at: str = FOREVER


class TagList(msgspec.Struct):
    models: list[Tag]


class ShowRequest(msgspec.Struct):
    """A model to describe. name: the key that older clients use instead of `model`."""

    model: str = ""
    name: str = ""


class Pulled(msgspec.Struct):
    status: str = "success"


class ShowReply(msgspec.Struct):
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    modified_at: str = NEVER


class Version(msgspec.Struct):
    version: str


class Error(msgspec.Struct):
    error: str


def operations() -> list[Operation]:
    # Ollama accepts any content-type, and curl, as its documentation uses it, sends that of a form.
    post = partial(Operation, OLLAMA, "POST", any_type=True)
    get = partial(Operation, OLLAMA, "GET")
    return [
        post("/api/embed", embed, "Vectors of texts", "embed", (EmbedRequest,), (EmbedReply,)),
        post(
            "/api/embeddings", prompt, "Vector of a text", "embed", (PromptRequest,), (PromptReply,)
        ),
        post("/api/show", show, "Describe a model", "key", (ShowRequest,), (ShowReply,)),
        post("/api/pull", pull, "Check for a model", "key", (ShowRequest,), (Pulled,)),
        get("/api/tags", tags, "The served models", "key", response=(TagList,)),
        get("/api/ps", tags, "The loaded models: all that are served", "key", response=(TagList,)),
        get(
            "/api/version",
            version,
            "The release of Ollama whose form is used",
            "key",
            response=(Version,),
        ),
        get("/", home, "Check that the server runs", "nothing", plain="text/plain"),
    ]


async def embed(call: Call) -> Reply:
    """Embed texts. Without a text, the reply only says that the model is there."""
    started = now()
    request = await decoded(call.body, EmbedRequest)
    choice = _choice(call, request.model)
    vectors: Any = []
    tokens = truncated = 0
    if request.input:
        embedded = await choice.engine.embed(
            [request.input] if isinstance(request.input, str) else request.input,
            instruction_of(request, choice),
            truncate=request.truncate,
            dimensions=request.dimensions,
        )
        vectors = embedded.vectors
        tokens, truncated = embedded.tokens, len(embedded.truncated)
    total = int((now() - started) * 1e9)
    return _reply(EmbedReply(request.model or choice.name, vectors, total, 0, tokens), truncated)


async def prompt(call: Call) -> Reply:
    """Embed one text, which is truncated if it is too long: the older form."""
    request = await decoded(call.body, PromptRequest)
    refuse_other_vectors(request, REFUSED)
    choice = _choice(call, request.model)
    if not request.prompt:
        return _reply(PromptReply([]), 0)
    embedded = await choice.engine.embed([request.prompt], instruction_of(request, choice))
    vector: Any = embedded.vectors[0]
    return _reply(PromptReply(vector), len(embedded.truncated))


def _reply(found: EmbedReply | PromptReply, truncated: int) -> Reply:
    body = orjson.dumps(msgspec.structs.asdict(found), option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, headers=[truncated_header(truncated)])


async def show(call: Call) -> Reply:
    request = await decoded(call.body, ShowRequest)
    manifest = _choice(call, request.model or request.name).engine.manifest
    info: dict[str, str | int] = {
        "general.architecture": manifest.family,
        f"{manifest.family}.context_length": manifest.text.max_tokens,
        f"{manifest.family}.embedding_length": manifest.dimension,
    }
    return Reply(json_body(ShowReply(_details(manifest), info, ["embedding"])))


async def pull(call: Call) -> Reply:
    """Answer as Ollama does for a model that is there already: clients pull before they embed."""
    request = await decoded(call.body, ShowRequest)
    _choice(call, request.model or request.name)
    # A stream has a line of JSON for each step; this one has only the last step.
    return Reply(json_body(Pulled()) + b"\n")


async def tags(call: Call) -> Reply:
    """List the served models, on both routes: every served model is loaded."""
    return Reply(json_body(TagList([_tag(call, name) for name in call.models.listed])))


def _tag(call: Call, listed: str) -> Tag:
    # Some clients add ":latest" to a name, and then look for it here.
    name = listed if ":" in listed else f"{listed}:latest"
    model = call.models.choose(listed).engine.manifest
    return Tag(name, name, model.files[MODEL_FILE], _details(model), model.text.max_tokens)


def _details(manifest: Manifest) -> Details:
    return Details(manifest.family, [manifest.family], manifest.precision)


async def version(_: Call) -> Reply:
    return Reply(json_body(Version(SPOKEN)))


async def home(_: Call) -> Reply:
    return Reply(HOME, content_type=b"text/plain; charset=utf-8")


def _choice(call: Call, name: str) -> Choice:
    try:
        return call.models.choose(name, any_case=True)
    except ModelNotFound:
        raise ModelNotFound(f"model '{name}' not found", param="model") from None


def error_reply(error: ServerError) -> Reply:
    # Clients look for this sentence, and shorten their texts when they find it.
    too_long = isinstance(error, TextTooLong)
    prefix = "the input length exceeds the context length: " if too_long else ""
    return error_reply_of(error, Error(prefix + error.public))


OLLAMA = Dialect("Ollama", error_reply, Error)
