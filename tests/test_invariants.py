"""Absences in the server, found by walking its imports and by importing it."""

import ast
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from server import clock

ROOT = Path(__file__).parents[1]
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
    "onnxruntime": "inference/runtime.py",
    "tokenizers": "inference/tokenizer.py",
    # Of it, nothing else writes the environment and sets up logs.
    "pymilvus": "databases/milvus/client.py",
    "milvus_lite": "databases/milvus/embedded.py",
    "faiss": {
        "store/local_index/fastscan_block.py",
        "store/local_index/lists.py",
        "store/local_index/fastscan.py",
        "store/local_index/rows.py",
        "store/local_index/exact.py",
        "store/faiss_files.py",
    },
    "sqlite3": {
        "store/sqlite/advice.py",
        "store/sqlite/database.py",
        "store/upkeep/database_file.py",
    },
    "threading": {
        "inference/lanes.py",
        "store/folder.py",
        "store/hit_cache.py",
        "system/idle_connections.py",
        "cli/indexing/background.py",
        "store/words/bases.py",
        "databases/outbox.py",
        "databases/qdrant/connection.py",
        "databases/milvus/connection.py",
        "databases/milvus/database.py",
        "databases/postgres/pool.py",
    },
    "concurrent": {"collections/read_threads.py", "collections/external/connection.py"},
    "time": "clock.py",
    "mcp": {"cli/agents/tools.py", "cli/agents/transports.py"},
    # Connects to the scheduler that --address names; only `bulk embed` imports it.
    "distributed": "bulk/cluster.py",
    "dask": "bulk/cluster.py",
    "pyarrow": {
        "bulk/inputs.py",
        "bulk/layout.py",
        "bulk/rows.py",
        "bulk/scanning.py",
        "bulk/parts.py",
        "bulk/filling.py",
        # Its errors only, which workers send back.
        "bulk/cluster.py",
    },
    "uvicorn": {"net/server.py", "net/http_protocol.py"},
    "prometheus_client": {
        "telemetry/metrics.py",
        "telemetry/process_metrics.py",
        "telemetry/tei_metrics.py",
        "collections/metrics.py",
        "collections/external/metrics.py",
    },
}
CONCURRENCY = {"threading", "_thread", "concurrent", "multiprocessing", "queue"}
# Lanes are threads, reads have some of their own, and two caches and a file of names that threads share
# have a lock. Calls to a vector database have threads of their own, and its outbox, to which requests append while
# a thread delivers, has a lock. A command reads files in a thread that may wait for ever, and asyncio would wait
# for it at the end.
THREADS = {
    "inference/lanes.py": CONCURRENCY,
    "collections/read_threads.py": {"concurrent"},
    "collections/external/connection.py": {"concurrent"},
    "databases/outbox.py": {"threading"},
    "store/folder.py": {"threading"},
    "store/hit_cache.py": {"threading"},
    "store/words/bases.py": {"threading"},
    "system/idle_connections.py": {"threading"},
    "cli/indexing/background.py": {"threading"},
    # A folder of Qdrant, whose client takes one call at a time.
    "databases/qdrant/connection.py": {"threading"},
    # Milvus is connected to once, and its collections are written by one call at a time.
    "databases/milvus/connection.py": {"threading"},
    "databases/milvus/database.py": {"threading"},
    # Sessions of PostgreSQL that calls on any thread share.
    "databases/postgres/pool.py": {"threading"},
}
# The loop must stay free: to deliver answers while the engine closes, beside a huge text, the disk,
# the audit, the index, a large body, a search, a page of the manual, and a server that a command talks to.
TO_THREAD = {
    "api/health.py": 2,
    "api/files/reading.py": 1,
    "api/body.py": 1,
    "api/endpoint.py": 1,
    "api/web/manual.py": 2,
    "app.py": 2,
    "auth/audit.py": 1,
    "collections/chunk_embedding.py": 1,
    "inference/tokenization/loop_tokenizer.py": 1,
    "inference/token_ids.py": 1,
    "collections/read_threads.py": 1,
    "collections/administration/restore.py": 1,
    "collections/registry.py": 2,
    "net/reload.py": 1,
    "system/memory.py": 1,
    "cli/connection.py": 1,
    "cli/indexing/background.py": 1,
    "collections/live_collection.py": 5,
}
# The only file that connects, and those that import it.
CONNECTS = "cli/connection.py"
ASKS = {
    "cli/remote.py",
    "cli/running.py",
    # Waits for a server that is started again.
    "cli/exchange/followed_transfer.py",
    "cli/commands/opening.py",
    "cli/commands/agents.py",
    "cli/agents/tools.py",
    "cli/agents/transports.py",
}
# Files besides it that import a package of OUTGOING, and why that opens no connection to another machine:
# pairs of Unix sockets for the processes of one server, and descriptors over them.
PAIRS = "net/ipc.py"
# Datagrams to the supervisor that started the server, whose address is not a host's.
NOTIFIES = "system/systemd.py"
# A Unix socket to listen on, and one connection to its file, to know whether another process listens.
ASKS_WHO_LISTENS = "net/unix_socket.py"
# Connections that clients have opened, taken from a listening socket before it is closed.
TAKES = "net/backlog.py"
# Contexts for connections that come in.
ENCRYPTS = "net/certificates.py"
# Spans to the one address of --trace-endpoint, by a package that is imported only for such an address.
TRACES = "api/tracing.py"
# Files that reach the vector databases of --vector-database, by packages that `databases/address.py` has
# imported only for such an address.
ADDRESSES = "databases/address.py"
CONNECTS_TO_POSTGRES = "databases/postgres/tcp.py"
REACHES_DATABASES = {
    "databases/qdrant/connection.py": {"httpx"},
    "databases/qdrant/transport.py": {"httpx", "ssl"},
    CONNECTS_TO_POSTGRES: {"socket"},
    # Contexts of TLS for its connections.
    "databases/postgres/encryption.py": {"ssl"},
    # Sockets of both kinds whose answers are bounded; it opens none.
    "databases/postgres/answers.py": {"socket", "ssl"},
    # The form of an address.
    "databases/postgres/login.py": {"urllib"},
}
DATABASE_CLIENTS = {
    "qdrant_client": "databases/qdrant/",
    "pg8000": "databases/postgres/",
    "pymilvus": "databases/milvus/",
    "milvus_lite": "databases/milvus/",
}
MAY_IMPORT = {
    **REACHES_DATABASES,
    # The form of a URL.
    ADDRESSES: {"urllib"},
    PAIRS: {"socket"},
    TAKES: {"socket"},
    NOTIFIES: {"socket"},
    ASKS_WHO_LISTENS: {"socket"},
    ENCRYPTS: {"ssl"},
    TRACES: {"requests"},
    # Names of statuses, and the form of a path.
    "cli/remote.py": {"http", "urllib"},
}
# All that each uses of `socket`: nothing with a host's address or a name.
USED_OF_SOCKET = {
    PAIRS: {
        "AF_UNIX",
        "MSG_CTRUNC",
        "SOCK_SEQPACKET",
        "recv_fds",
        "send_fds",
        "socket",
        "socketpair",
    },
    NOTIFIES: {"socket", "AF_UNIX", "SOCK_DGRAM"},
    ASKS_WHO_LISTENS: {"socket", "AF_UNIX"},
}
# The calls with which it could connect, listen or send by itself.
REACHES = {PAIRS: [], NOTIFIES: ["sendto"], ASKS_WHO_LISTENS: ["connect_ex", "bind"]}
# Use types of Starlette and nothing else of it.
TYPED_BY_STARLETTE = {"net/server.py", "auth/gate.py", "auth/host_check.py"}
# Packages that read files of others, and the readers that import them.
PARSERS = {"lxml", "pypdfium2", "python_calamine"}
READERS = {f"sources/office/{name}.py" for name in ("pdf", "docx", "pptx", "sheets", "html")} | {
    *(
        "sources/office/plain_font.py",
        "sources/office/archive.py",
        "sources/office/epub.py",
        "sources/office/mail.py",
    )
}
COMPILES = "inference/kernels/compiler.py"
# The only files that start processes, and how: workers, the exporter where the user has agreed to fetch a model,
# and one that reads files of others.
STARTS = {
    "net/worker_handle.py": ["create_subprocess_exec"],
    "cli/first_model.py": ["create_subprocess_exec"],
    "sources/isolated/process.py": ["Popen"],
    # Runs a C compiler for `make kernels`; no server imports it.
    COMPILES: ["Popen"],
}
# Who may import whom: a room imports only rooms of the lines above its own. Rooms of one line do not
# import each other. `root` is what all may use.
ROOMS = (
    "messages",
    "root",
    "system",
    "store telemetry",
    "inference auth databases",
    "collections",
    "sources",
    "api bulk",
    "app",
    "net",
    "doctor",
    "cli",
    "__main__",
)
ROOT_FILES = {"__init__", "errors", "types", "clock", "config", "config_sources"}
MAX_ROOM_FILES = 20


def room(name: str) -> str:
    """Return the folder of a file directly under `server`, "root" for what all may use."""
    first = name.removesuffix(".py").partition("/")[0]
    return "root" if first in ROOT_FILES else first


def line(name: str) -> int:
    places = {each: place for place, rooms in enumerate(ROOMS) for each in rooms.split()}
    return places[room(name)]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@cache
def nodes(name: str) -> Sequence[ast.AST]:
    """Return all nodes of a file, which is walked once for all tests."""
    return tuple(ast.walk(tree(name)))


@cache
def imports(name: str) -> Sequence[str]:
    """Return every module that a file imports, at its top or inside a function."""
    return tuple(_imports(name))


def _imports(name: str) -> Iterator[str]:
    for node in nodes(name):
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
        node.attr for node in nodes(name) if isinstance(node, ast.Attribute) and node.attr in wanted
    ]


def siblings(name: str) -> set[str]:
    """Return the files of the server that a file imports."""
    found = set()
    for module in imports(name):
        if module.partition(".")[0] == "server":
            path = "/".join(module.split(".")[1:])
            found |= {f"{path}.py", f"{path}/__init__.py".lstrip("/")} & FILES.keys()
    return found - {name}


def test_there_is_something_to_walk() -> None:
    assert {"inference/engine.py", "api/endpoint.py", "store/vector_index.py"} <= FILES.keys()
    assert "server.errors" in set(imports("inference/engine.py"))
    assert siblings("inference/lanes.py") == {
        "inference/batching.py",
        "clock.py",
        "errors.py",
        "telemetry/metrics.py",
        "types.py",
        "inference/speed.py",
        "inference/tenant.py",
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
    assert packages(name) & OUTGOING == MAY_IMPORT.get(name, set())
    # SQLite's connect opens a file.
    connecting = {
        ASKS_WHO_LISTENS: {"connect_ex"},
        CONNECTS_TO_POSTGRES: {"create_connection"},
    }
    opening = set(ONE_FILE["sqlite3"]) - {"store/sqlite/advice.py"}
    connecting |= {file: {"connect"} for file in opening}
    assert set(attributes(name, *CONNECTING)) == connecting.get(name, set())
    assert CONNECTS not in siblings(name) or name in ASKS


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


@pytest.mark.parametrize("package", DATABASE_CLIENTS)
def test_clients_of_databases_are_imported_only_for_an_address_of_theirs(package: str) -> None:
    folder = DATABASE_CLIENTS[package]
    found = {name for name in FILES if package in packages(name)}
    assert found and all(name.startswith(folder) for name in found)
    adapters = {name for name in FILES if name.startswith(folder)}
    assert {name for name in FILES if siblings(name) & adapters} <= adapters


def used_of_socket(name: str) -> set[str]:
    return {
        node.attr
        for node in nodes(name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "socket"
    }


@pytest.mark.parametrize("name", USED_OF_SOCKET)
def test_sockets_reach_no_other_machine(name: str) -> None:
    assert used_of_socket(name) == USED_OF_SOCKET[name]
    assert attributes(name, "bind", "listen", "sendto", "connect_ex") == REACHES[name]


def test_encryption_never_touches_a_connection() -> None:
    """It shakes hands with itself, in memory."""
    assert attributes(ENCRYPTS, "wrap_socket", "create_default_context") == []
    assert attributes(ENCRYPTS, "wrap_bio") == ["wrap_bio"] * 2


@pytest.mark.parametrize("name", FILES)
def test_processes_are_started_in_three_places_only(name: str) -> None:
    assert ("subprocess" in packages(name)) == ("Popen" in STARTS.get(name, []))
    started = attributes(
        name, "create_subprocess_exec", "create_subprocess_shell", "spawnv", "Popen"
    )
    assert started == STARTS.get(name, [])


def test_files_of_others_are_parsed_only_in_the_process_without_rights() -> None:
    """`sources/isolated/answering.py` imports the readers by their names, in that process."""
    assert {name for name in FILES if packages(name) & PARSERS} <= READERS
    assert {name for name in FILES if siblings(name) & READERS} <= READERS


@pytest.mark.parametrize("name", FILES)
def test_threads_are_started_in_few_places_only(name: str) -> None:
    assert packages(name) & CONCURRENCY <= THREADS.get(name, set())
    started = attributes(name, "to_thread", "run_in_executor", "fork", "Thread")
    allowed = 1 if name == "inference/lanes.py" else TO_THREAD.get(name, 0)
    assert len(started) == allowed


def test_environment_is_read_by_the_command_line_and_written_by_three_imports() -> None:
    touched = {
        name: count
        for name in FILES
        if (count := len(attributes(name, "environ", "getenv", "putenv", "environb")))
    }
    assert touched == {
        **{"cli/parser.py": 1, "inference/runtime.py": 1, "inference/tokenizer.py": 1},
        "databases/milvus/client.py": 2,
        "sources/isolated/process.py": 1,  # passes on the variables without secrets
        COMPILES: 1,  # the language of its sentences
    }
    for name in ("inference/runtime.py", "inference/tokenizer.py", "databases/milvus/client.py"):
        stored = [
            node
            for node in nodes(name)
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
            if isinstance(node.value, ast.Attribute) and node.value.attr == "environ"
        ]
        assert len(stored) == 1


def test_variable_against_telemetry_is_set_before_onnxruntime_is_imported() -> None:
    lines = FILES["inference/runtime.py"].read_text(encoding="utf-8").splitlines()
    assert lines.index('os.environ["ORT_DISABLE_TELEMETRY"] = "1"') < lines.index(
        "import onnxruntime"
    )


@pytest.mark.parametrize("name", FILES)
def test_web_framework_and_status_codes_stay_in_the_api_and_the_app(name: str) -> None:
    if room(name) in ("api", "app"):
        return
    if name.startswith("store/"):
        assert "starlette" not in packages(name), "and numbers like 500 are sizes there"
        return
    if name == "sources/isolated/sandbox.py":
        return  # Its numbers are those of system calls.
    if name in REACHES_DATABASES:
        return  # Its statuses are those of answers to this server.
    assert "starlette" not in packages(name) or name in TYPED_BY_STARLETTE
    statuses = {
        node.value
        for node in nodes(name)
        if isinstance(node, ast.Constant) and type(node.value) is int
    }
    assert statuses & {400, 401, 403, 404, 405, 413, 415, 422, 424, 429, 500, 503} == set()


@pytest.mark.parametrize("name", FILES)
def test_imports_between_rooms_go_one_way(name: str) -> None:
    for other in siblings(name):
        assert room(other) == room(name) or line(other) < line(name), f"{name} imports {other}"


def test_one_file_chooses_the_vector_index() -> None:
    local = {name for name in FILES if name.startswith("store/local_index/")}
    assert local
    assert {name for name in FILES.keys() - local if siblings(name) & local} == {"store/folder.py"}


def test_dialects_do_not_know_each_other() -> None:
    dialects = {name for name in FILES if name.startswith("api/dialects/")}
    assert len(dialects) >= 7
    for name in dialects:
        assert siblings(name) & dialects - {"api/dialects/__init__.py"} == set()


def test_rooms_are_small_enough_to_read() -> None:
    assert len(list(SERVER.glob("*.py"))) <= 8
    folders = {path.parent for path in FILES.values()} - {SERVER}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= MAX_ROOM_FILES, folder


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


def test_only_keys_the_audit_traces_and_a_note_ask_what_time_it_is() -> None:
    """A clock that jumps changes nothing that is stored or computed, but the note of the last write."""
    assert clock.now is time.perf_counter
    assert clock.wall_s is time.time
    asking = {name for name in FILES if "server.clock.wall_s" in imports(name)}
    assert asking == {
        "auth/gate.py",
        "api/tracing.py",
        "cli/commands/keys.py",
        # Shown to people, and read by nothing.
        "store/collection.py",
        # Labels and ages of writes that wait for a vector database: labels never go back.
        "databases/outbox.py",
    }
    for name in FILES:
        if name == "system/host.py":
            # Only `doctor` reports what it reads; nothing that serves or stores uses it.
            continue
        found = attributes(name, "time", "time_ns", "localtime", "gmtime", "utcnow", "today")
        assert found == (["time", "gmtime"] if name == "clock.py" else [])
        # Of a key's last day, of dates in files, and of dates that filters compare.
        dated = name in (
            *("auth/keys.py", "sources/values.py", "sources/office/sheets.py"),
            "store/filters/instants.py",
        )
        assert dated or not packages(name) & {"datetime", "calendar"}
        asked = re.search(r"CURRENT_TIME|strftime|julianday|unixepoch", FILES[name].read_text())
        assert not asked or name == "clock.py"


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_running_server_has_nothing_loaded_that_trains_exports_or_connects() -> None:
    loaded = modules_after(
        "import server.app, server.cli.parser, server.sources.readers, server.net.http_protocol,"
        " server.store.collection"
    )
    assert {"server.inference.engine", "onnxruntime", "faiss"} <= loaded
    unwanted = OFFLINE | {"requests", "httpx", "aiohttp", "urllib3", "smtplib", "pandas", "scipy"}
    unwanted |= {"opentelemetry", "distributed", "dask", "pyarrow"} | PARSERS
    assert "server." + COMPILES.removesuffix(".py").replace("/", ".") not in loaded
    assert {module.partition(".")[0] for module in loaded} & unwanted == set()


def test_command_line_answers_without_loading_a_model_runtime() -> None:
    loaded = modules_after("from server.cli import parser; parser._parser(parser.Terminal.of({}))")
    # --help answers at once.
    heavy = {"onnxruntime", "tokenizers", "faiss", "starlette", "uvicorn", "numpy", "sqlite3"}
    assert loaded & heavy == set()
