"""Handlers work on the models in a worker, and in the first process also on the collections."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from server.api.operation import Call, CollectionCall, State, WorkerState, collection_call
from server.app import create_worker_app, every_operation, model_operations
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support.clients import app_of, lifespan


def call_type(handler: Callable[..., Any]) -> type:
    """Return the annotated type of a handler's only argument."""
    called = handler if inspect.isfunction(handler) else type(handler).__call__
    hints = get_type_hints(called)
    hints.pop("return")
    [kind] = hints.values()
    assert isinstance(kind, type)
    return kind


def test_no_operation_of_a_worker_takes_a_call_with_collections() -> None:
    kinds = {call_type(each.handler) for each in model_operations(Config())}
    assert kinds == {Call} and not hasattr(Call, "collections")


def test_operations_on_collections_take_a_call_with_them() -> None:
    paths = {
        each.path
        for each in every_operation(Config(), Metrics())
        if call_type(each.handler) is CollectionCall
    }
    assert {"/search", "/documents", "/collections", "/ready"} <= paths
    assert "/embed" not in paths and "/metrics" not in paths


def test_each_kind_of_process_has_its_state_and_nothing_else(toy_model: Model) -> None:
    async def keys(app: Any) -> set[str]:
        async with lifespan(app) as state:
            return set(state)

    worker = create_worker_app([toy_model], Config(), Metrics())
    assert asyncio.run(keys(worker)) == WorkerState.__annotations__.keys() == {"models"}
    first = app_of(toy_model)
    assert asyncio.run(keys(first)) == get_type_hints(State).keys() == {"models", "collections"}


def test_a_call_with_collections_cannot_be_made_from_a_workers_state() -> None:
    state: Any = {"models": None}
    with pytest.raises(KeyError, match="collections"):
        collection_call({}, b"", state)
