"""GET /openapi.json: every route, described by the types that decode and encode its bodies."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.api.description.answers import answers
from server.api.description.names import COLLECTION, operation_id
from server.api.description.schemas import schemas_of
from server.api.native_errors import NATIVE
from server.api.operation import Call, CollectionOperation, Operation
from server.api.replies import Reply, json_body
from server.store.collection_name import PATTERN

PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")

Json = dict[str, Any]

# Meaning and possible values of each parameter, by its name.
PARAMETERS: Mapping[str, Json] = {
    "limit": {
        "description": "Documents on a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        "example": 20,
    },
    "after": {
        "description": "`next` of the previous page.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0},
        "example": 0,
    },
    "filter": {
        "description": "A filter on metadata, as JSON.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": {"year": {"$gte": 2020}}}
        },
    },
    "sample": {
        "description": "Chunks on the map, at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 5000, "default": 2000},
    },
    "query": {
        "description": "A text to place among the chunks; each gets its cosine with it.",
        "schema": {"type": "string", "minLength": 1},
        "example": "天气",
    },
    "collection": {
        "description": "A collection's name: letters and digits of any script, and . _ -, no dot first.",
        "schema": {"type": "string", "pattern": PATTERN},
        "example": "laws",
    },
    "alias": {
        "description": "Another name for a collection, of the same form.",
        "schema": {"type": "string", "pattern": PATTERN},
        "example": "current",
    },
    "id": {
        "description": "A document's id; it may contain slashes.",
        "schema": {"type": "string", "minLength": 1},
        "example": "a",
    },
    "page": {
        "description": "A page or file of the manual.",
        "schema": {"type": "string", "minLength": 1},
        "example": "en/index.html",
    },
    "file": {
        "description": "The path of a file of the search page.",
        "schema": {"type": "string", "minLength": 1},
        "example": "index.html",
    },
    "name": {
        "description": "The file's name; its suffix says the format.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        "example": "report.md",
    },
    "dry_run": {
        "description": "true: show what would be stored, and store nothing.",
        "schema": {"type": "boolean", "default": False},
    },
    "encoding": {
        "description": "Of a text file; left out, it is detected.",
        "schema": {"type": "string"},
        "example": "utf-8",
    },
    "text_column": {
        "description": "The column of a table that is the text; left out, it is found by its name.",
        "schema": {"type": "string"},
    },
    "title_column": {
        "description": "The column that is the title, or none.",
        "schema": {"type": "string"},
    },
    "id_column": {
        "description": "The column that is the id, or none.",
        "schema": {"type": "string"},
    },
    "types": {
        "description": "Types of columns, such as year=number,code=text; left out, they are found.",
        "schema": {"type": "string"},
    },
    "replace": {
        "description": "Of lines: false refuses documents whose ids are stored.",
        "schema": {"type": "boolean", "default": True},
    },
    "/restore replace": {
        "description": "true: a collection of this name is replaced; false: it is refused.",
        "schema": {"type": "boolean", "default": False},
    },
    "embedder": {
        "description": "Of lines: what made the vectors that they bring.",
        "schema": {"type": "string"},
    },
    "model": {
        "description": "Any name of a served model; it may contain slashes.",
        "schema": {"type": "string", "minLength": 1},
        "example": "bge-small-zh-v1.5",
    },
}

# Example bodies by path and name. They work in this order, first in the default collection and then in
# another one.
EXAMPLES: Mapping[str, Mapping[str, Json]] = {
    "/embed": {
        "native": {"texts": ["今天天气很好", "Good weather"], "input_type": "document"},
        "TEI": {"inputs": "今天天气很好", "prompt_name": "query"},
    },
    "/v1/embeddings": {"texts": {"input": ["今天天气很好", "Good weather"]}},
    "/embeddings": {"text": {"input": "今天天气很好", "encoding_format": "base64"}},
    "/openai/deployments/{model:path}/embeddings": {"text": {"input": "今天天气很好"}},
    "/openai/v1/embeddings": {"text": {"input": "今天天气很好"}},
    "/v1/embed": {"texts": {"texts": ["今天天气很好"], "input_type": "search_document"}},
    "/v2/embed": {"query": {"texts": ["今天天气很好"], "input_type": "search_query"}},
    "/api/embed": {"texts": {"model": "", "input": ["今天天气很好", "Good weather"]}},
    "/api/embeddings": {"text": {"model": "", "prompt": "今天天气很好"}},
    "/api/show": {"first": {"model": ""}},
    "/api/pull": {"first": {"model": "", "stream": False}},
    "/vectors": {"query": {"text": "今天天气很好", "config": {"task_type": "query"}}},
    "/vectors/": {"text": {"text": "Good weather"}},
    "/": {"text": {"inputs": "今天天气很好"}},
    "/invocations": {"texts": {"inputs": ["今天天气很好", "Good weather"]}},
    "/similarity": {
        "two": {"inputs": {"source_sentence": "今天天气很好", "sentences": ["天气不错", "你好"]}}
    },
    "/tokenize": {"text": {"inputs": "今天天气很好"}},
    "/decode": {"ids": {"ids": [1, 2, 3]}},
    "/embed_all": {"text": {"inputs": "今天天气很好"}},
    "/embed_sparse": {"text": {"inputs": "今天天气很好"}},
    "/predict": {"pair": {"inputs": ["天气", "今天天气很好"]}},
    "/rerank": {
        "documents": {"query": "天气", "documents": ["今天天气很好", "你好"]},
        "TEI": {"query": "天气", "texts": ["今天天气很好", "你好"]},
    },
    "/v1/rerank": {"documents": {"query": "天气", "documents": ["今天天气很好", "你好"]}},
    "/v2/rerank": {"documents": {"query": "天气", "documents": ["今天天气很好", "你好"]}},
    "/v1/ranking": {
        "passages": {"query": {"text": "天气"}, "passages": [{"text": "今天天气很好"}]}
    },
    "/v1/score": {"pairs": {"text_1": "天气", "text_2": ["今天天气很好", "你好"]}},
    "/score": {"pair": {"text_1": "天气", "text_2": "今天天气很好"}},
    "/collections": {"whole": {"name": "laws"}},
    "/documents": {
        "two": {
            "documents": [
                {"id": "a", "text": "人工智能正在改变世界。", "metadata": {"year": 2024}},
                {"id": "b", "text": "深圳是一个高速发展的城市。", "metadata": {"year": 2020}},
            ]
        }
    },
    "/search": {
        "question": {"query": "AI 能做哪些事?", "top_k": 1},
        "hybrid": {"query": "城市", "mode": "hybrid", "filter": {"year": {"$lt": 2024}}},
        "several": {"queries": ["AI", "城市"], "highlight": True},
        "groups": {"query": "城市", "group_by": {"key": "year"}, "facets": ["year"]},
        "explained": {"query": "城市", "mode": "hybrid", "explain": True, "parts": 2},
        "listed": {"sort": {"by": [{"key": "year", "order": "desc"}]}, "cursor": ""},
    },
    "/documents/count": {"filter": {"filter": {"year": 2024}}},
    "/documents/delete": {"ids": {"ids": ["b"]}, "filter": {"filter": {"year": {"$lt": 2000}}}},
    "/backup": {"whole": {}},
    "/rename": {"other": {"name": "statutes"}},
    "/outbox/retry": {"whole": {}},
    "/outbox/set-aside": {"whole": {}},
    "/documents/get": {"two": {"ids": ["a", "b"]}},
    "/documents/export": {"all": {}, "some": {"filter": {"year": 2024}, "include_vectors": True}},
    "/transfer": {"copy": {"to": "copy", "database": None, "prune": False}},
    "/reindex": {"same": {}},
    "/words": {"both": {"synonyms": [["AI", "人工智能"]], "stop_words": ["请问"]}},
    "/aliases/{alias}": {"laws": {"collection": "laws"}},
}
# The same for PATCH.
PATCHES: Mapping[str, Mapping[str, Json]] = {
    "/documents": {
        "ids": {"ids": ["a", "b"], "metadata": {"checked": True, "draft": None}},
        "each": {"documents": [{"id": "a", "metadata": {"year": 2024}}]},
    },
    "/documents/{id:path}": {"year": {"metadata": {"year": 2024}}},
}

# Refusals that do not depend on the request's content.
OF_BODIES = {
    "413": "The body has more than `--max-body-bytes`, or more tokens than the queue holds",
    "415": "`content-type` is not application/json (with curl: `-H 'Content-Type: application/json'`), or the"
    " body is compressed",
    "429": "No room now; the same request may succeed after `retry-after` seconds",
}
OF_FILES = {
    **OF_BODIES,
    "413": "The file has more than `--max-body-bytes`, or more documents than one request may store",
    "415": "`content-type` is one that a web page may send anywhere: text/plain or a form's",
}
LINES = '{"id": "a", "text": "Good weather"}\n{"id": "b", "text": "It rains"}\n'
A_FILE: Json = {
    "description": "The file",
    "required": True,
    "content": {
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
            "examples": {"markdown": {"value": "# Weather\n\nIt rains."}},
        }
    },
}
OF_KEYS = {
    "401": "The server was given `--keys`, and the request brings none, an unknown or an expired one",
    "403": "The key lacks the scope that this needs, or may not use the collection",
}
STOPPING = {"503": "The server is stopping"}
RETRY = {
    "retry-after": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
}
# Ways to send a key. One of them is enough, and none is needed where the server has no keys.
SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
SECURITY: list[Json] = [{}, *({name: []} for name in SCHEMES)]


def operations(described: Sequence[CollectionOperation], version: str) -> list[Operation]:
    """Return the operation that describes these operations and itself."""

    async def openapi(_: Call) -> Reply:
        return Reply(body)

    own = Operation(
        NATIVE, "GET", "/openapi.json", openapi, "This document", "nothing", response=(dict,)
    )
    body = json_body(document([*described, own], version))
    return [own]


def document(operations: Sequence[CollectionOperation], version: str) -> Json:
    """Return an OpenAPI 3.1 document of these operations."""
    types = [
        kind for each in operations for kind in (*each.request, *each.response, *_errors(each))
    ]
    sent = [one for each in operations for one in each.request]
    schemas, components = schemas_of(types, sent)
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Json] = {}
    for each in operations:
        path = PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schema_of)
    tags = dict.fromkeys(each.dialect.name for each in operations)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inkwell", "version": version},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SCHEMES},
    }


def examples(path: str, method: str = "POST") -> Mapping[str, Json]:
    """Return example bodies for this path, by name."""
    table = PATCHES if method == "PATCH" else EXAMPLES
    return table.get(path.removeprefix(COLLECTION) or path, {})


def _errors(operation: CollectionOperation) -> tuple[Any, ...]:
    return (operation.dialect.error, *operation.errors)


def _operation(operation: CollectionOperation, schema_of: Mapping[int, Any]) -> Json:
    inside = operation.path.removeprefix(COLLECTION)
    parameters = [
        {"name": name, "in": "path", "required": True, **PARAMETERS[name]}
        for name in PARAMETER.findall(operation.path)
    ] + [
        {"name": name, "in": "query", **PARAMETERS.get(f"{inside} {name}", PARAMETERS[name])}
        for name in operation.query
    ]
    name = operation_id(operation.method, PARAMETER.sub(r"{\1}", operation.path))
    described: Json = {
        "operationId": name,
        "tags": [operation.dialect.name],
        "summary": operation.summary,
        "responses": _responses(operation, schema_of),
    }
    _show(described["responses"][str(operation.status)], answers().get(name))
    notes = [inspect.getdoc(operation.handler) or f"{operation.summary}."]
    if operation.needs != "nothing":
        described["security"] = SECURITY
        any_key = operation.needs == "key"
        notes.append(f"Needs {'any key' if any_key else f'the scope `{operation.needs}`'}.")
    described["description"] = "\n\n".join(notes)
    if parameters:
        described["parameters"] = parameters
    if operation.is_file:
        described["requestBody"] = A_FILE
    if operation.request:
        body = _content("The request", operation.request, schema_of)
        bodies = examples(operation.path, operation.method)
        shown = {name: {"value": value} for name, value in bodies.items()}
        body["content"]["application/json"]["examples"] = shown
        for kind in operation.stream_types:
            lines = {"schema": {"type": "string"}, "examples": {"two": {"value": LINES}}}
            body["content"][kind.decode()] = lines
        described["requestBody"] = {**body, "required": True}
    return described


def _show(response: Json, answer: Any) -> None:
    """Add an example to a response with a body."""
    for content in response.get("content", {}).values():
        if answer is not None:
            content["example"] = answer


def _responses(operation: CollectionOperation, schema_of: Mapping[int, Any]) -> Json:
    ending = "Done" if operation.status < 400 else "Always refused"
    done = _content(ending, operation.response, schema_of)
    if operation.plain:
        schema = {"type": "string", **({"format": "binary"} if "octet" in operation.plain else {})}
        done["content"] = {operation.plain: {"schema": schema}}
    refused = _content("Refused or failed; the body says why", _errors(operation), schema_of)
    responses = {str(operation.status): done}
    of_keys = {} if operation.needs == "nothing" else OF_KEYS
    of_bodies = OF_BODIES if operation.request else OF_FILES if operation.is_file else {}
    for status, reason in {**of_keys, **of_bodies, **STOPPING}.items():
        responses[status] = {**refused, "description": reason}
        if status in ("429", "503"):
            responses[status]["headers"] = RETRY
    return {**responses, "default": refused}


def _content(description: str, kinds: Sequence[Any], schema_of: Mapping[int, Any]) -> Json:
    if not kinds:
        return {"description": description}
    schemas = [schema_of[id(kind)] for kind in kinds]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
