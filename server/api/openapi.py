"""GET /openapi.json: every route, described from the types that decode and encode its bodies."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.http import Call, Handler, Reply, json_body
from server.api.operation import Operation
from server.api.shape import NATIVE

REFERENCE = "#/components/schemas/{name}"
PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def operations(described: Sequence[Operation], version: str) -> list[Operation]:
    return [
        Operation(
            NATIVE,
            "GET",
            "/openapi.json",
            page(described, version),
            "This document",
            response=(dict,),
        )
    ]


def page(operations: Sequence[Operation], version: str) -> Handler:
    """The handler; the document is made once."""
    body = json_body(document(operations, version))

    async def openapi(_: Call) -> Reply:
        return Reply(body)

    return openapi


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """An OpenAPI 3.1 document of these operations."""
    types = [
        kind for each in operations for kind in (*each.request, *each.response, each.dialect.error)
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        path = PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inkwell", "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PARAMETER.findall(operation.path)
    ] + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in operation.query]
    done = _content("Done", operation.response, schema_of)
    if operation.plain:
        done["content"] = {operation.plain: {"schema": {"type": "string"}}}
    described: dict[str, Any] = {
        "tags": [operation.dialect.name],
        "summary": operation.summary,
        "responses": {
            str(operation.status): done,
            "default": _content(
                "Refused or failed; the body says why", [operation.dialect.error], schema_of
            ),
        },
    }
    if note := inspect.getdoc(operation.handler):
        described["description"] = note
    if parameters:
        described["parameters"] = parameters
    if operation.request:
        body = _content("The request", operation.request, schema_of)
        described["requestBody"] = {**body, "required": True}
    return described


def _content(description: str, kinds: Sequence[Any], schema_of: dict[int, Any]) -> dict[str, Any]:
    if not kinds:
        return {"description": description}
    schemas = [schema_of[id(kind)] for kind in kinds]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
