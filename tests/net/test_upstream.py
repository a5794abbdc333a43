"""The parts of uvicorn, uvloop and Starlette that this project overrides or uses although they are internal.

An upgrade that renames one of them, or changes its parameters, fails here with its name. A new override or
use that is not listed fails too. `pyproject.toml` bounds the versions of these packages from above.
"""

import ast
import asyncio
import inspect
import tomllib
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from starlette.applications import Starlette
from starlette.routing import Router
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from server import app
from server.net import handoff, http_protocol, server, tls_protocol
from tests.support.processes import ROOT

# By class of another package: what subclasses override, with its parameters after `self`.
OVERRIDDEN: dict[type, dict[str, str]] = {
    HttpToolsProtocol: {
        "__init__": "config server_state app_state _loop",
        "connection_made": "transport",
        "connection_lost": "exc",
        "eof_received": "",
        "data_received": "data",
        "pause_writing": "",
        "resume_writing": "",
        "shutdown": "",
        "on_message_begin": "",
        "on_headers_complete": "",
        "on_body": "body",
        "on_message_complete": "",
        "on_response_complete": "",
        "timeout_keep_alive_handler": "",
        "_should_upgrade": "",
    },
    FlowControl: {"__init__": "transport", "resume_reading": ""},
    uvicorn.Server: {
        "__init__": "config",
        "handle_exit": "sig frame",
        "serve": "sockets",
        "startup": "sockets",
        "shutdown": "sockets",
        "on_tick": "counter",
        "_log_started_message": "listeners",
    },
    SSLProtocol: {
        "__init__": "args kwargs",
        "connection_made": "transport",
        "connection_lost": "exc",
        "eof_received": "",
        "pause_writing": "",
        "resume_writing": "",
    },
    Starlette: {"__call__": "scope receive send"},
}
OURS: dict[type, tuple[type, ...]] = {
    HttpToolsProtocol: (
        http_protocol.HttpProtocol,
        handoff.DealingProtocol,
        handoff.AdoptedProtocol,
        handoff.WorkerProtocol,
    ),
    FlowControl: (http_protocol.Flow,),
    uvicorn.Server: (server._Server, server._FirstServer, server._WorkerServer),
    SSLProtocol: (tls_protocol.TlsProtocol,),
    Starlette: (app.App,),
}
# Attributes and methods of them that are used, besides what is overridden.
USED = {
    HttpToolsProtocol: {
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "app_state",
        "config",
        "connections",
        "cycle",
        "flow",
        "headers",
        "loop",
        "parser",
        "pipeline",
        "scope",
        "server_state",
        "timeout_keep_alive",
        "timeout_keep_alive_task",
        "transport",
        "url",
    },
    FlowControl: {"read_paused", "write_paused"},
    uvicorn.Server: {"config", "lifespan", "server_state", "servers", "should_exit"},
    SSLProtocol: set(),
    Starlette: set(),
}
USED_OF_A_CYCLE = {
    "disconnected",
    "flow",
    "keep_alive",
    "message_event",
    "more_body",
    "on_response",
    "response_complete",
    "response_started",
    "scope",
    "transport",
    "waiting_for_100_continue",
}


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]  # type: ignore[arg-type]


def as_written(base: type) -> type:
    """Return a class as its own package defines it, whatever has been replaced in it since."""
    spec = find_spec(base.__module__)
    assert spec is not None
    if not isinstance(spec.loader, SourceFileLoader):
        return base  # A compiled class, in which nothing can be replaced.
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, base.__name__)
    assert isinstance(found, type)
    return found


@pytest.mark.parametrize("base", OVERRIDDEN, ids=lambda base: base.__name__)
def test_every_override_is_listed_and_exists_upstream(base: type) -> None:
    made = {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__"}
    # Those that only uvloop's compiled class lists.
    made |= {"__reduce__", "__new__", "__setstate__", "__pyx_vtable__", "__static_attributes__"}
    upstream = as_written(base)
    found = set().union(*(vars(each).keys() & dir(upstream) for each in OURS[base])) - made
    assert found == OVERRIDDEN[base].keys()
    for name, expected in OVERRIDDEN[base].items():
        assert parameters(getattr(upstream, name)) == expected.split(), f"{base.__name__}.{name}"


def test_a_method_that_another_package_replaces_is_read_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As `sse_starlette` does when it is imported, which the MCP server needs.
    monkeypatch.setattr(uvicorn.Server, "handle_exit", lambda *args, **kwargs: None)
    test_every_override_is_listed_and_exists_upstream(uvicorn.Server)


@pytest.mark.parametrize("base", OVERRIDDEN, ids=lambda base: base.__name__)
def test_overrides_can_be_called_as_upstream_calls_them(base: type) -> None:
    for each in OURS[base]:
        for name in OVERRIDDEN[base].keys() & vars(each).keys() - {"__init__"}:
            assert parameters(vars(each)[name]) == OVERRIDDEN[base][name].split(), each


def attributes_of_self(kind: type) -> Iterator[str]:
    tree = ast.parse(inspect.getsource(kind))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Call):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner.func, "id", "")
            if name in ("self", "super"):
                yield node.attr


def own_attributes(kind: type) -> set[str]:
    """Names that a class defines, as methods or by assigning them."""
    tree = ast.parse(inspect.getsource(kind))
    assigned = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return assigned | vars(kind).keys()


@pytest.mark.parametrize("base", USED, ids=lambda base: base.__name__)
def test_every_use_is_listed(base: type) -> None:
    own = set().union(*map(own_attributes, OURS[base])) - USED[base] - set(dir(base))
    used = {name for each in OURS[base] for name in attributes_of_self(each)}
    assert used - own - OVERRIDDEN[base].keys() == USED[base]


def test_everything_used_of_a_connection_exists() -> None:
    async def nothing(scope: object, receive: object, send: object) -> None: ...

    async def check() -> None:
        config = uvicorn.Config(nothing, http=HttpToolsProtocol, ws="none", log_config=None)
        protocol = HttpToolsProtocol(config, ServerState(), {})
        protocol.on_message_begin()
        for name in USED[HttpToolsProtocol]:
            assert hasattr(protocol, name), name
        # `connections` is the server's set, `pipeline` takes the newest from the left.
        assert protocol.connections is protocol.server_state.connections
        assert protocol.server_state.total_requests == 0
        assert isinstance(protocol.parser, httptools.HttpRequestParser)
        named = inspect.signature(RequestResponseCycle).parameters
        cycle = RequestResponseCycle(**dict.fromkeys(named))  # type: ignore[arg-type]
        for name in USED_OF_A_CYCLE:
            assert hasattr(cycle, name), name
        flow = FlowControl(None)  # type: ignore[arg-type]
        assert (flow.read_paused, flow.write_paused) == (False, False)

    asyncio.run(check())
    assert parameters(HttpToolsProtocol._start_asgi_task) == ["cycle", "app"]
    assert parameters(HttpToolsProtocol._unset_keepalive_if_required) == []
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"


def test_everything_used_of_a_cycle_is_listed() -> None:
    tree = ast.parse(inspect.getsource(http_protocol) + inspect.getsource(handoff))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        if ast.unparse(node.value) in ("cycle", "self.cycle")
    }
    assert used == USED_OF_A_CYCLE


def test_everything_used_of_uvicorns_server_exists() -> None:
    made = uvicorn.Server(uvicorn.Config("none:none", log_config=None))
    for name in ("config", "server_state", "should_exit", "started"):
        assert hasattr(made, name), name
    # These are set while it runs.
    assert "self.lifespan = " in inspect.getsource(uvicorn.Server._serve)
    assert "self.servers = [server]" in inspect.getsource(uvicorn.Server.startup)


def test_uvloops_tls_is_made_from_these_arguments() -> None:
    with pytest.raises(TypeError):
        SSLProtocol(None, None, None)
    with pytest.raises(ValueError, match="ssl_shutdown_timeout"):
        SSLProtocol(None, None, None, None, ssl_handshake_timeout=1, ssl_shutdown_timeout=-1)


def test_starlettes_router_has_the_switch_for_slashes() -> None:
    assert Router().redirect_slashes is True


@pytest.mark.parametrize("name", ["uvicorn", "uvloop", "httptools", "starlette"])
def test_versions_are_bounded_above_and_the_locked_one_is_allowed(name: str) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [wanted] = [each for each in map(Requirement, stated["dependencies"]) if each.name == name]
    assert any(part.operator == "<" for part in wanted.specifier)
    assert version(name) in wanted.specifier
    lock = (ROOT / "locks" / "run.txt").read_text(encoding="utf-8")
    [locked] = [
        line.split("==")[1].split()[0] for line in lock.splitlines() if line.startswith(f"{name}==")
    ]
    assert locked in wanted.specifier
