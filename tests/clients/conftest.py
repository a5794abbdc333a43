"""Fixtures of all tests of clients: one server, and the check that no client calls home.

Nothing here imports the server: these tests know what any client knows, its address.
"""

import os
from collections.abc import Iterator

# Read when the clients are imported.
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    LANGCHAIN_TRACING_V2="false",
    LANGSMITH_TRACING="false",
    ANONYMIZED_TELEMETRY="false",
    HAYSTACK_TELEMETRY_ENABLED="false",
    LITELLM_LOCAL_MODEL_COST_MAP="true",
    NO_PROXY="127.0.0.1",
)

import pytest

import refusing
from connections import elsewhere
from processes import MODEL, serving, write_scorer


@pytest.fixture(autouse=True)
def nothing_leaves_the_machine() -> Iterator[None]:
    yield
    assert elsewhere == []


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of a server with the shipped model."""
    assert (MODEL / "manifest.json").exists(), (
        "the shipped model is not exported: run `make export`"
    )
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def reranking_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the shipped model and a toy reranker by the name "reranker"."""
    folder = tmp_path_factory.mktemp("reranker") / "artifact"
    write_scorer(folder)
    with serving("--model", f"reranker={folder}") as address:
        yield address


@pytest.fixture(scope="module")
def busy_url() -> Iterator[str]:
    """The address of one that refuses."""
    with refusing.busy() as address:
        yield address
