"""What must be absent from the server, by walking its imports and by importing it."""

import ast
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from server import metrics

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server"
FILES = {
    path.relative_to(SERVER).as_posix(): path
    for path in sorted(SERVER.rglob("*.py"))
    if "__pycache__" not in path.parts
}

TRAINING = {"torch", "transformers", "optimum", "onnx", "sentence_transformers", "safetensors"}
OFFLINE = TRAINING | {"export", "benchmarks", "deploy", "tests", "huggingface_hub"}
OUTGOING = {
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "requests",
    "smtplib",
    "socket",
    "ssl",
    "telnetlib",
    "urllib",
    "urllib3",
    "xmlrpc",
}
CONNECTING = {
    "connect",
    "connect_ex",
    "create_connection",
    "open_connection",
    "open_unix_connection",
}
ONE_FILE = {
    "onnxruntime": "session.py",
    "tokenizers": "tokenizer.py",
    "faiss": {"store/block.py", "store/exact.py", "store/pair.py"},
    "sqlite3": "store/database.py",
    "threading": "lanes.py",
    "time": "metrics.py",
    "uvicorn": {"listener.py", "wire.py"},
    "prometheus_client": {"metrics.py", "figures.py"},
}
CONCURRENCY = {"threading", "_thread", "concurrent", "multiprocessing", "queue"}
# The loop must stay free: to deliver answers while the engine closes, beside a huge text, the disk,
# the audit, the index, and a server that a command talks to.
TO_THREAD = {
    "api/probes.py": 2,
    "app.py": 2,
    "audit.py": 1,
    "cutting.py": 1,
    "engine.py": 1,
    "indexing.py": 1,
    "library.py": 2,
    "reload.py": 1,
    "remote.py": 1,
    "shelf.py": 5,
}
# The only file that connects, and the only one that imports it.
CONNECTS, ASKS = "remote.py", "commands.py"
# Makes pairs of Unix sockets for the processes of one server and takes descriptors over them; so it
# imports `socket`, and uses of it what has neither an address nor a name to connect to.
PAIRS = "channel.py"
USED_OF_SOCKET = {
    "AF_UNIX",
    "MSG_CTRUNC",
    "SOCK_SEQPACKET",
    "recv_fds",
    "send_fds",
    "socket",
    "socketpair",
}
# Sends datagrams to the supervisor that started the server, whose address is no host's, and connects to
# nobody.
NOTIFIES = "notify.py"
NOTIFYING = {"socket", "AF_UNIX", "SOCK_DGRAM"}
# Listens at the file of a Unix socket, and connects to it once to know whether another process does.
ASKS_WHO_LISTENS = "socketfile.py"
# Makes contexts for connections that come in, and imports `ssl` for them.
ENCRYPTS = "tls.py"
# The only file that starts processes.
STARTS = "workers.py"
# The only file that sends anything, to the one address of --trace-endpoint, by a client of a package
# that it imports when there is such an address.
TRACES = "api/tracing.py"
# Who may import whom: only from a line above its own, and from files beside it on its line.
LAYERS = (
    "__init__ errors types metrics figures sums cpu machine session hugepages chunking channel notify"
    " usage trace quota",
    "settings manifest keys audit socketfile",
    "config logs",
    "tls",
    "pieces tokenizer encoder store/*",
    "batching width sources origin",
    "lanes",
    "engine",
    "models cutting",
    "queries",
    "shelf",
    "library",
    "probing",
    "target",
    "local remote",
    "faults",
    "indexing upkeep prompt",
    "facts findings",
    "checks/*",
    "doctor",
    "transfer",
    "api/__init__ api/hosts",
    "api/access",
    "api/http",
    "api/operation",
    "api/shape",
    "api/*",
    "app wire passing handshake reload",
    "workers",
    "listener",
    "commands",
    "cli",
    "worker",
    "__main__",
)


def level(name: str) -> int:
    """The line of a file: of its own name, or else of its folder."""
    places = {word: place for place, layer in enumerate(LAYERS) for word in layer.split()}
    stem = name.removesuffix(".py")
    return places[stem] if stem in places else places[f"{stem.partition('/')[0]}/*"]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(name: str) -> set[str]:
    return {module.partition(".")[0] for module in imports(name)}


def attributes(name: str, *wanted: str) -> list[str]:
    return [
        node.attr
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and node.attr in wanted
    ]


def siblings(name: str) -> set[str]:
    """Files of the server that a file imports."""
    found = set()
    for module in imports(name):
        if module.partition(".")[0] == "server":
            path = "/".join(module.split(".")[1:])
            found |= {f"{path}.py", f"{path}/__init__.py".lstrip("/")} & FILES.keys()
    return found - {name}


def test_there_is_something_to_walk() -> None:
    assert {"engine.py", "api/http.py", "store/index.py"} <= FILES.keys()
    assert "server.errors" in set(imports("engine.py"))
    assert siblings("lanes.py") == {
        "batching.py",
        "errors.py",
        "metrics.py",
        "types.py",
        "width.py",
    }


@pytest.mark.parametrize("name", FILES)
def test_server_imports_nothing_that_trains_exports_or_measures(name: str) -> None:
    assert packages(name) & OFFLINE == set()


@pytest.mark.parametrize("package", ONE_FILE)
def test_each_heavy_or_delicate_package_is_imported_where_it_belongs(package: str) -> None:
    expected = ONE_FILE[package]
    found = {name for name in FILES if package in packages(name)}
    assert found == (expected if isinstance(expected, set) else {expected})


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_the_server_connects_to_anything(name: str) -> None:
    if name == CONNECTS:
        return
    allowed = {
        PAIRS: {"socket"},
        TRACES: {"requests"},
        NOTIFIES: {"socket"},
        ENCRYPTS: {"ssl"},
        ASKS_WHO_LISTENS: {"socket"},
    }
    assert packages(name) & OUTGOING == allowed.get(name, set())
    connecting = attributes(name, *CONNECTING)
    if name == ASKS_WHO_LISTENS:
        assert connecting == ["connect_ex"]
        assert used_of_socket(name) == {"socket", "AF_UNIX"}
    else:
        # SQLite's connect opens a file.
        assert connecting == [] or name == "store/database.py"
    assert CONNECTS not in siblings(name) or name == ASKS


def test_what_sends_traces_is_imported_only_for_an_address() -> None:
    assert {name for name in FILES if "opentelemetry" in packages(name)} == {TRACES}
    heads = {
        module
        for node in tree(TRACES).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in [node.names[0].name if isinstance(node, ast.Import) else str(node.module)]
    }
    assert {head.partition(".")[0] for head in heads} == {
        "collections",
        "server",
        "starlette",
        "typing",
    }


def used_of_socket(name: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "socket"
    }


def test_supervisor_is_told_by_datagrams_that_cannot_leave_the_machine() -> None:
    assert used_of_socket(NOTIFIES) == NOTIFYING
    assert attributes(NOTIFIES, "bind", "listen", "sendto", "connect_ex") == ["sendto"]


def test_encryption_never_touches_a_connection() -> None:
    """It shakes hands with itself, in memory."""
    assert attributes(ENCRYPTS, "wrap_socket", "create_default_context") == []
    assert attributes(ENCRYPTS, "wrap_bio") == ["wrap_bio"] * 2


def test_channel_uses_nothing_of_sockets_that_has_an_address() -> None:
    assert used_of_socket(PAIRS) == USED_OF_SOCKET
    assert attributes(PAIRS, "bind", "listen", "sendto", "connect_ex") == []


@pytest.mark.parametrize("name", FILES)
def test_processes_are_started_by_the_first_one_only(name: str) -> None:
    assert "subprocess" not in packages(name)
    started = attributes(
        name, "create_subprocess_exec", "create_subprocess_shell", "spawnv", "Popen"
    )
    assert started == (["create_subprocess_exec"] if name == STARTS else [])


@pytest.mark.parametrize("name", FILES)
def test_threads_are_started_in_the_lanes_only(name: str) -> None:
    if name != "lanes.py":
        assert packages(name) & CONCURRENCY == set()
    started = attributes(name, "to_thread", "run_in_executor", "fork", "Thread")
    allowed = 1 if name == "lanes.py" else TO_THREAD.get(name, 0)
    assert len(started) == allowed


def test_environment_is_read_by_the_command_line_and_written_by_two_imports() -> None:
    touched = {
        name: count
        for name in FILES
        if (count := len(attributes(name, "environ", "getenv", "putenv", "environb")))
    }
    assert touched == {"cli.py": 1, "session.py": 1, "tokenizer.py": 1}
    for name in ("session.py", "tokenizer.py"):
        stored = [
            node
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
            if isinstance(node.value, ast.Attribute) and node.value.attr == "environ"
        ]
        assert len(stored) == 1


def test_variable_against_telemetry_is_set_before_onnxruntime_is_imported() -> None:
    lines = FILES["session.py"].read_text(encoding="utf-8").splitlines()
    assert lines.index('os.environ["ORT_DISABLE_TELEMETRY"] = "1"') < lines.index(
        "import onnxruntime"
    )


@pytest.mark.parametrize("name", FILES)
def test_web_framework_and_status_codes_stay_in_the_api_and_the_app(name: str) -> None:
    if name.startswith("api/") or name == "app.py":
        return
    if name.startswith("store/"):
        assert "starlette" not in packages(name), "and numbers like 500 are sizes there"
        return
    assert "starlette" not in packages(name) or name == "listener.py"
    statuses = {
        node.value
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Constant) and type(node.value) is int
    }
    assert statuses & {400, 401, 403, 404, 405, 413, 415, 422, 424, 429, 500, 503} == set()


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name: str) -> None:
    for other in siblings(name):
        assert level(other) <= level(name), f"{name} must not import {other}"
        # No dialect knows another.
        assert level(other) != level(name) or not name.startswith("api/")


def test_imports_have_no_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in siblings(name):
                visit(other, (*above, name))
            done.add(name)

    for name in FILES:
        visit(name, ())
    assert done == set(FILES)


def test_only_keys_the_audit_and_traces_ask_what_time_it_is() -> None:
    """So a clock that jumps, in either direction, changes nothing that is stored or computed."""
    assert metrics.now is time.perf_counter
    assert metrics.wall_s is time.time
    asking = {name for name in FILES if "server.metrics.wall_s" in imports(name)}
    assert asking == {"api/access.py", "api/tracing.py", "commands.py"}
    for name in FILES:
        if name == "machine.py":
            # What it reads is told by `doctor`, and by nothing that serves or stores.
            continue
        found = attributes(name, "time", "time_ns", "localtime", "gmtime", "utcnow", "today")
        assert found == (["time", "gmtime"] if name == "metrics.py" else [])
        # Of a key's last day.
        assert not packages(name) & {"datetime", "calendar"} or name == "keys.py"
        asked = re.search(r"CURRENT_TIME|strftime|julianday|unixepoch", FILES[name].read_text())
        assert not asked or name == "metrics.py"


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_running_server_has_nothing_loaded_that_trains_exports_or_connects() -> None:
    loaded = modules_after("import server.app, server.cli, server.wire, server.store.collection")
    assert {"server.engine", "onnxruntime", "faiss"} <= loaded
    unwanted = OFFLINE | {"requests", "httpx", "aiohttp", "urllib3", "smtplib", "pandas", "scipy"}
    unwanted |= {"opentelemetry"}
    assert {module.partition(".")[0] for module in loaded} & unwanted == set()


def test_command_line_answers_without_loading_a_model_runtime() -> None:
    loaded = modules_after("import server.cli; server.cli._parser()")
    assert loaded & {"onnxruntime", "tokenizers", "faiss", "starlette", "uvicorn"} == set()
