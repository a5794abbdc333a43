"""JSON schemas of the types of bodies, in the forms that generators of clients take."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

REFERENCE = "#/components/schemas/{name}"

Json = dict[str, Any]
NULL: Json = {"type": "null"}


def schemas_of(types: Sequence[Any], sent: Sequence[Any]) -> tuple[Sequence[Json], dict[str, Json]]:
    """Return the schema of each type, and the components that these refer to.

    sent: the types of requests, in which every key that may be left out may be null.
    """
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    _, of_requests = msgspec.json.schema_components(sent)
    for name in of_requests:
        _allow_null(components[name])
    for part in _objects([*schemas, *components.values()]):
        _simplify(part)
    named = {_short(name): component for name, component in components.items()}
    for name, component in named.items():
        # Some generators name classes by it.
        component["title"] = name
    return schemas, named


def _objects(value: Any) -> Iterator[Json]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _simplify(schema: Json) -> None:
    """Change what generators cannot read into what says the same, or a little less.

    A list of a fixed length is closed by `maxItems`, not by `"items": false`; parts of one type are its
    items. A list of anything says so. Of values that differ in case only that in lower case is named, because
    they become one name in code.
    """
    if schema.get("items") is False:
        first, *others = schema["prefixItems"]
        del schema["items"]
        if all(other == first for other in others):
            del schema["prefixItems"]
            schema["items"] = first
    if schema.get("type") == "array" and "prefixItems" not in schema:
        schema.setdefault("items", {})
    values = schema.get("enum")
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        schema["type"] = "string"
        # msgspec sorts them, so that in lower case comes last.
        schema["enum"] = list({value.lower(): value for value in values}.values())
    if isinstance(reference := schema.get("$ref"), str):
        place, _, name = reference.rpartition("/")
        schema["$ref"] = f"{place}/{_short(name)}"


def _short(name: str) -> str:
    """Return the name of a component. Types of one name in two modules have the module's before theirs.

    msgspec writes the full path of such a module.
    """
    module, _, own = name.rpartition(".")
    return module.rpartition(".")[2].removesuffix("_errors").title().replace("_", "") + own


def _allow_null(component: Json) -> None:
    """Allow null for every key that may be left out: it counts as left out."""
    for key, schema in component.get("properties", {}).items():
        kinds = schema.get("anyOf", [{}] if not schema else [schema])
        if key not in component.get("required", ()) and {} not in kinds:
            # An empty object as the default is left out: it says no more than that the key may be.
            default = schema.get("default", {})
            others = {} if default == {} else {"default": default}
            plain = [{name: v for name, v in kind.items() if name != "default"} for kind in kinds]
            allowed = plain if NULL in plain else [*plain, NULL]
            component["properties"][key] = {"anyOf": allowed, **others}
