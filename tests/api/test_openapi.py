"""The OpenAPI document is valid, complete, and agrees with the code."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.api.description.answers import answers
from server.api.description.names import COLLECTION, NAMES
from server.api.documents import request as documents
from server.api.openapi import EXAMPLES, PARAMETERS, PATCHES, document, examples
from server.api.operation import CollectionOperation
from server.app import every_operation
from server.config import Config
from server.inference.model import Model
from server.store.collection_name import PATTERN
from server.telemetry.metrics import Metrics
from tests.support.clients import ask, run

OPERATIONS = every_operation(Config(), Metrics())
DOCUMENT = document(OPERATIONS, "1")


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return every operation of the document: method, path and description."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_document_is_valid_openapi_3_1() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.validate()
    assert schema.specification.version == "3.1.0"
    assert {operation.ok().label for operation in schema.get_all_operations()} == {
        f"{method} {path}" for method, path, _ in described()
    }


def test_every_route_is_described_with_itself(toy_model: Model) -> None:
    served = ask(toy_model, "GET", "/openapi.json").json()
    routes = {(each.method, each.path.replace(":path}", "}")) for each in OPERATIONS}
    assert routes == {(method, path) for method, path, _ in described()}
    assert {path for _, path in routes} == set(served["paths"])
    assert "/openapi.json" in served["paths"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
def test_every_operation_says_what_it_takes_and_gives(operation: CollectionOperation) -> None:
    path = operation.path.replace(":path}", "}")
    said = DOCUMENT["paths"][path][operation.method.lower()]
    assert said["summary"] and said["tags"] == [operation.dialect.name]
    assert ("requestBody" in said) == (operation.method in ("POST", "PUT", "PATCH"))
    assert {str(operation.status), "503", "default"} <= set(said["responses"])
    assert ({"413", "415", "429"} <= set(said["responses"])) == ("requestBody" in said)
    for status, response in said["responses"].items():
        empty = status == "204" and not operation.response
        assert response["description"] and ("content" in response) != empty
        assert ("retry-after" in response.get("headers", {})) == (status in ("429", "503"))
    asks = operation.needs != "nothing"
    assert ({"401", "403"} <= set(said["responses"])) == ("security" in said) == asks
    if asks and operation.needs != "key":
        assert f"Needs the scope `{operation.needs}`." in said["description"]
    for parameter in said.get("parameters", []):
        assert parameter["description"] and ("schema" in parameter) != ("content" in parameter)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in described()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    assert {"search", "get_document_in_collection", "post_v1_embeddings"} <= set(names)
    for name in names:
        assert re.fullmatch("[a-z0-9]+(_[a-z0-9]+)*", name) and len(name) <= 60
    named = {f"{method} {path}" for method, path, _ in described()}
    assert set(NAMES) <= named


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from parts(part)


def test_schemas_are_of_the_kind_that_generators_take() -> None:
    assert not [part for part in parts(DOCUMENT) if part.get("items", {}) is False]
    spans = DOCUMENT["components"]["schemas"]["Hit"]["properties"]["highlights"]["items"]
    assert spans == {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}}
    for part in parts(DOCUMENT["components"]["schemas"]):
        if values := [each for each in part.get("enum", ()) if isinstance(each, str)]:
            assert part["type"] == "string" and len({each.lower() for each in values}) == len(
                values
            )
    assert all(re.fullmatch("[A-Z][A-Za-z]+", name) for name in DOCUMENT["components"]["schemas"])


def examples_of(described: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the examples in a parameter, a body or a response, each with its schema."""
    if "example" in described and "schema" in described:
        yield described["schema"], described["example"]
    for content in described.get("content", {}).values():
        if "example" in content:
            yield content["schema"], content["example"]
        for example in content.get("examples", {}).values():
            yield content["schema"], example["value"]


def test_every_operation_has_a_description_and_examples_that_fit_its_schemas() -> None:
    jsonschema = pytest.importorskip("jsonschema_rs")
    for method, path, operation in described():
        assert len(operation["description"]) > 10, (method, path)
        places = [*operation.get("parameters", ()), operation.get("requestBody", {})]
        places += operation["responses"].values()
        found = [pair for place in places for pair in examples_of(place)]
        empty = "content" not in operation["responses"].get("204", {"content": {}})
        assert found or empty, (method, path)
        for schema, value in found:
            whole = {**schema, "components": DOCUMENT["components"]}
            jsonschema.Draft202012Validator(whole).validate(value)


def test_answers_are_recorded_of_operations_that_exist() -> None:
    """A new operation needs one too: `python -m tests.support.api_answers --write`."""
    with_body = {
        operation["operationId"]
        for _, _, operation in described()
        if any("content" in one for code, one in operation["responses"].items() if code < "4")
    }
    refused = {
        operation["operationId"]
        for method, path, operation in described()
        if not any(code.startswith("2") for code in operation["responses"])
    }
    assert set(answers()) == with_body | refused


def test_limits_of_parameters_are_those_of_the_code() -> None:
    limit = PARAMETERS["limit"]["schema"]
    assert (limit["minimum"], limit["maximum"]) == (1, documents.MAX_PAGE)
    assert PARAMETERS["collection"]["schema"]["pattern"] == PATTERN
    named = {name for each in OPERATIONS for name in each.query}
    assert named <= set(PARAMETERS)


@pytest.mark.parametrize("name", ["limit", "after"])
def test_parameters_take_their_limits_and_nothing_beyond(toy_model: Model, name: str) -> None:
    schema = PARAMETERS[name]["schema"]

    async def test(client: httpx.AsyncClient) -> None:
        for value, status in (
            (schema["minimum"], 200),
            (schema["maximum"], 200),
            (schema["default"], 200),
            (schema["minimum"] - 1, 400),
            (schema["maximum"] + 1, 400),
            ("9" * 5000, 400),
            ("", 400),
            ("1.0", 400),
            ("٣", 400),
        ):
            answer = await client.get("/documents", params={name: value})
            assert answer.status_code == status, value

    run(test, toy_model)


def test_there_is_an_example_for_every_body() -> None:
    for each in OPERATIONS:
        assert not each.request or examples(each.path, each.method), each.path
    assert EXAMPLES.keys() <= {each.path for each in OPERATIONS}
    assert PATCHES.keys() <= {each.path for each in OPERATIONS if each.method == "PATCH"}


def test_examples_work_in_their_order(
    toy_model: Model, toy_scorer: Model, toy_m3: list[Model]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        paths = {(each.path, each.status) for each in OPERATIONS if each.method == "POST"}
        inside = [path.removeprefix(COLLECTION) for path, _ in paths if COLLECTION in path]
        statuses = dict(paths)
        for prefix, places in (("", list(EXAMPLES)), (COLLECTION, inside)):
            for place in (place for place in EXAMPLES if place in places):
                if prefix + place not in statuses:
                    continue
                path = prefix.format(collection="laws") + place.replace("{model:path}", "toy")
                for name, body in EXAMPLES[place].items():
                    answer = await client.post(path, json=body)
                    assert answer.status_code == statuses[prefix + place], (path, name, answer.text)
                    while (
                        place == "/transfer"
                        and (await client.get(path)).json()["state"] == "running"
                    ):
                        await asyncio.sleep(0.01)
                    if place == "/rename":
                        back = {"name": "laws" if prefix else "default"}
                        await client.post(f"/collections/{body['name']}/rename", json=back)
        for place, bodies in PATCHES.items():
            for name, body in bodies.items():
                answer = await client.patch(place.replace("{id:path}", "a"), json=body)
                assert answer.status_code == 200, (place, name, answer.text)
        filter = PARAMETERS["filter"]["content"]["application/json"]["example"]
        page = await client.get("/documents", params={"filter": json.dumps(filter)})
        assert [one["id"] for one in page.json()["documents"]] == ["a"]
        one = await client.get(f"/documents/{PARAMETERS['id']['example']}")
        assert one.json()["text"] == "人工智能正在改变世界。"

    run(test, toy_model, others=[toy_scorer, *toy_m3])


def test_errors_of_both_forms_of_embed_are_described(toy_model: Model) -> None:
    content = DOCUMENT["paths"]["/embed"]["post"]["responses"]["default"]["content"]
    assert len(content["application/json"]["schema"]["anyOf"]) == 2
    assert set(ask(toy_model, "POST", "/embed", {"inputs": [""]}).json()) == {"error", "error_type"}
    assert set(ask(toy_model, "POST", "/embed", {"texts": [""]}).json()) == {"error"}
