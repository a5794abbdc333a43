"""One browser and one server for all tests of the page: the shipped model, and collections that they only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser import Page, launched
from tests.support.page_documents import HANDBOOK, HOSTILE, LONG, many
from tests.support.processes import Server, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: `make test-page` runs them, other runs do not."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("page")


def stored(
    client: httpx.Client, collection: str, documents: list[dict[str, Any]], **options: Any
) -> None:
    client.post("/collections", json={"name": collection, **options}).raise_for_status()
    for begin in range(0, len(documents), 2000):
        body = {"documents": documents[begin : begin + 2000]}
        client.post(f"/collections/{collection}/documents", json=body).raise_for_status()


@pytest.fixture(scope="session")
def server(shipped_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    with serving(shipped_artifact, folder, "--lanes", "2") as found, found.client() as client:
        stored(client, "default", HANDBOOK)
        stored(client, "hostile", HOSTILE)
        stored(client, "many", many(10_000))
        stored(client, "long", LONG, chunks={"size": 64})
        stored(client, "empty", [])
        yield found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with launched(tmp_path_factory.mktemp("browser") / "profile") as driver:
        yield driver


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    """A page of `server`, as of `page_of`."""
    with page_of(server, browser) as found:
        yield found


@contextmanager
def page_of(server: Server, browser: Any) -> Iterator[Page]:
    """Yield a page of a server. Afterwards its console must be clean, and only the server was asked."""
    found = Page(browser, server.url)
    forget(found)
    yield found
    assert found.complaints() == []
    assert found.hosts() <= {f"{server.host}:{server.port}"}


def forget(page: Page) -> None:
    """Forget what an earlier test left in the browser."""
    page.driver.get(f"{page.url}/ui/icon.svg")
    page.script("localStorage.clear(); sessionStorage.clear()")
    page.driver.get_log("browser")
    page.driver.get_log("performance")
