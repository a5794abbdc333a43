"""The documents say what the code does: settings, errors, routes, metrics, targets, version."""

import dataclasses
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from server import VERSION, errors
from server.api import replies
from server.api.dialects import openai, tei
from server.app import every_operation
from server.collections.external.collection import ExternalCollection
from server.collections.external.connection import Connection
from server.collections.external.metrics import OutboxMetrics
from server.collections.metrics import CollectionMetrics
from server.config import Config
from server.config_sources import env_name
from server.errors import CallerError, RetryableError, ServerError, StartupError
from server.telemetry.metrics import Metrics
from tests.support.code_map import FOLDERS, SECTION, code_map

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*/*.md"))
}
LANGUAGES = ("en", "zh")
READMES = ("README.md", "README.zh-CN.md")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Characters; what needs more is a list or a section beside the table.
LONGEST_CELL = 100
# Folders of a machine, but for where a bundle installs; a URL's path or "models/..." does not begin like one.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:work|tmp|home|root|mnt|media|Users|opt(?!/inkwell)|data|srv)\b"
)


def text_of(name: str) -> str:
    return DOCUMENTS[name].read_text(encoding="utf-8")


def rows(name: str) -> Iterator[list[str]]:
    """Yield the cells of every row of the document's tables, without backquotes."""
    for line in text_of(name).splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]


def code_in(name: str) -> str:
    """Return the document's blocks and spans of code."""
    blocks = re.findall(r"```\w*\n(.*?)```", text_of(name), re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL))
    return "\n".join([*blocks, *spans])


def sections(name: str) -> dict[str, str]:
    """Return the text below each heading of the document, up to the next heading, in their order."""
    _, *parts = re.split(r"^#{2,} (.+)$", text_of(name), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


# --- settings -------------------------------------------------------------------------------------

SETTINGS = dataclasses.fields(Config)


def flag(setting: "dataclasses.Field[Any]") -> str:
    return "--" + setting.name.replace("_", "-")


def facts_of_setting(setting: "dataclasses.Field[Any]", language: str) -> str:
    """Return the first line below the setting's heading."""
    none, default = setting.default in ("", None), f"`{setting.default}`"
    if language == "zh":
        facts = [
            f"环境变量 `{env_name(setting.name)}`",
            "默认为空" if none else f"默认值 {default}",
        ]
    else:
        facts = [f"Variable `{env_name(setting.name)}`", f"default {'empty' if none else default}"]
    if bounds := setting.metadata["limits"]:
        words = ("范围", "到") if language == "zh" else ("limits", "to")
        facts.append(f"{words[0]} {bounds['low']} {words[1]} {bounds['high']}")
    return "，".join(facts) + "。" if language == "zh" else ", ".join(facts) + "."


@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_stand_in_the_order_of_the_code(language: str) -> None:
    headings = [name for name in sections(f"docs/{language}/reference/settings.md")]
    assert [name for name in headings if name.startswith("--")] == list(map(flag, SETTINGS))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_its_variable_default_and_limits(
    setting: "dataclasses.Field[Any]", language: str
) -> None:
    section = sections(f"docs/{language}/reference/settings.md")[flag(setting)]
    facts, meaning = section.strip().split("\n\n", 1)
    assert facts == facts_of_setting(setting, language)
    assert len(meaning) > len("The name.")


@pytest.mark.parametrize("language", LANGUAGES)
def test_list_of_the_settings_links_each_of_them(language: str) -> None:
    linked = re.findall(
        r"\[([a-z0-9-]+)\]\(#(--[a-z0-9-]+)\)", text_of(f"docs/{language}/reference/settings.md")
    )
    assert linked == [(flag(setting)[2:], flag(setting)) for setting in SETTINGS]


# --- errors ---------------------------------------------------------------------------------------


def leaves(kind: type[ServerError]) -> Iterator[type[ServerError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    for child in children:
        yield from leaves(child)
    if not children:
        yield kind


def made(kind: type[ServerError]) -> ServerError:
    return kind("said", retry_after_s=1) if issubclass(kind, RetryableError) else kind("said")


# A StoreError is also raised directly.
LEAVES: list[type[ServerError]] = [*leaves(ServerError), errors.StoreError]
ANSWERS = [kind for kind in LEAVES if not issubclass(kind, StartupError)]


def facts_of_error(kind: type[ServerError], language: str) -> str:
    """Return the first line below the error's heading: its exit status, and its status over HTTP."""
    facts = []
    if issubclass(kind, StartupError):
        words = "退出码 {}。" if language == "zh" else "Exit status {}."
        facts.append(words.format(kind.exit_status))
    if not issubclass(kind, StartupError) or issubclass(kind, errors.StoreError):
        error = made(kind)
        in_openai, in_tei = openai.error_reply(error), tei.error_reply(error)
        if language == "zh":
            words = "状态码 {}，type 为 `{}`。TEI：{}，error_type 为 `{}`。"
        else:
            words = "Status {}, type `{}`. TEI: {}, error_type `{}`."
        facts.append(
            words.format(
                replies.status_of(error),
                re.findall(r'"type":"(\w+)"', in_openai.body.decode())[0],
                in_tei.status,
                re.findall(r'"error_type":"(\w+)"', in_tei.body.decode())[0],
            )
        )
    return ("" if language == "zh" else " ").join(facts)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_is_documented_with_its_status_in_each_dialect(
    kind: type[ServerError], language: str
) -> None:
    section = sections(f"docs/{language}/reference/errors.md")[kind.code]
    facts, what_to_do = section.strip().split("\n\n", 1)
    assert facts == facts_of_error(kind, language)
    assert len(what_to_do) > len("A bug.")


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_only_what_is_no_fault_of_ours_has_a_status_below_500(kind: type[ServerError]) -> None:
    error = made(kind)
    assert isinstance(error, CallerError | RetryableError) or replies.status_of(error) >= 500


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_error_is_documented_that_does_not_exist(language: str) -> None:
    headings = sections(f"docs/{language}/reference/errors.md")
    codes = {name for name in headings if re.fullmatch("[a-z]+(_[a-z]+)*", name)}
    assert codes == {kind.code for kind in LEAVES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_codes_of_base_classes_are_named(language: str) -> None:
    def bases(kind: type[ServerError]) -> Iterator[type[ServerError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from bases(child)

    page = f"docs/{language}/reference/errors.md"
    for kind in bases(ServerError):
        assert kind.code in sections(page) or f"`{kind.code}`" in text_of(page)


# --- routes and metrics ---------------------------------------------------------------------------


def titles() -> list[str]:
    titled = [
        f"{each.method} {re.sub(':path}', '}', each.path)}"
        for each in every_operation(Config(), Metrics())
        # Paths inside a collection are described once, for the default one.
        if not each.path.startswith("/collections/{collection}/")
    ]
    assert "POST /embed" in titled
    return titled


def test_every_route_has_a_heading_and_every_heading_of_a_route_a_route() -> None:
    headings = re.findall(
        r"^## ((?:GET|POST|PUT|DELETE|PATCH) \S+)$",
        text_of("docs/en/reference/http.md") + text_of("docs/en/reference/search.md"),
        re.M,
    )
    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == set(titles())


def test_dialects_have_a_row_for_every_route_of_others_and_none_that_is_not_there() -> None:
    operations = every_operation(Config(), Metrics())
    spoken = {
        (each.dialect.name, f"{each.method} {each.path.replace(':path', '')}")
        for each in operations
        if each.dialect.name != "native" or each.path == "/embed"
    }
    # Another key in the body makes it another dialect, on the same path.
    spoken |= {("TEI", "POST /embed"), ("Rerank", "POST /rerank")}
    cells = [row for row in rows("docs/en/reference/dialects.md") if row[0] != "dialect"]
    assert all(len(row) == 4 for row in cells)
    listed = [(row[0], row[1]) for row in cells if row[0]]
    assert len(listed) == len(set(listed))
    assert set(listed) == spoken
    # A difference has a reason, unless it refers to another row or to the original.
    for dialect, route, differs, why in cells:
        known = "as by TEI" in differs or differs.startswith("as ") or differs.startswith("the ")
        assert bool(differs) <= (bool(why) or known), (dialect, route)


def test_translated_pages_have_the_headings_of_the_same_routes() -> None:
    def routes(name: str) -> list[str]:
        return re.findall(r"^## ([A-Z]+ /\S*)$", text_of(name), re.M)

    for name in DOCUMENTS:
        if name.startswith("docs/zh/"):
            assert routes(name) == routes(name.replace("docs/zh/", "docs/en/")), name


# The first word below a metric's heading, by its type. TEI's counters have no type, as in TEI.
KINDS = {
    "en": {"counter": "Counter", "unknown": "Counter", "gauge": "Gauge", "histogram": "Histogram"},
    "zh": {"counter": "计数器", "unknown": "计数器", "gauge": "瞬时值", "histogram": "直方图"},
}


class NoneElsewhere:
    """No vector database: the metrics have their names all the same."""

    connections: Mapping[str, Connection] = {}

    def all(self) -> list[ExternalCollection]:
        return []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_metric_is_documented_with_its_type_and_no_other_is(language: str) -> None:
    registry = Metrics().registry
    registry.register(CollectionMetrics(lambda: []))
    registry.register(OutboxMetrics(NoneElsewhere()))
    kinds = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
        if family.name.startswith(("inkwell_", "te_"))
    }
    assert {"inkwell_requests_total", "inkwell_parts", "te_queue_size"} <= set(kinds)
    described = {
        name: section.strip()
        for name, section in sections(f"docs/{language}/reference/http.md").items()
        if re.fullmatch(r"(inkwell|te)_\w+", name)
    }
    assert set(described) == set(kinds)
    for name, kind in kinds.items():
        assert re.match(KINDS[language][kind] + "[,:，：]", described[name]), name


# --- make -----------------------------------------------------------------------------------------

PHONY = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[0].split()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))


@pytest.mark.parametrize(
    "name", [*READMES, "CONTRIBUTING.md", "CHANGELOG.md", "docs/en/reference/settings.md"]
)
def test_targets_in_documents_exist(name: str) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", code_in(name)))
    assert named and named <= TARGETS


def test_make_help_lists_every_target_with_a_description() -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environ.pop("MFLAGS", None)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    described = dict(re.findall(r"^  make ([a-z-]+) +(\S.*)$", listed, re.M))
    assert set(described) == set(PHONY) == TARGETS


# --- egress ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_locked_package_has_its_telemetry_described(language: str) -> None:
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "locks/run.txt").read_text("utf-8"), re.M)
    assert set(locked) <= {cells[0] for cells in rows(f"docs/{language}/explanation/egress.md")}


# --- all documents --------------------------------------------------------------------------------


def test_changelog_begins_with_the_version_of_the_code() -> None:
    assert re.findall(r"^## \[?([0-9.]+)", text_of("CHANGELOG.md"), re.M)[0] == VERSION


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_names_a_path_of_a_machine(name: str) -> None:
    assert MACHINE_PATH.findall(text_of(name)) == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith("docs/")])
def test_no_cell_of_a_table_is_a_paragraph(name: str) -> None:
    for cells in rows(name):
        assert all(len(cell) <= LONGEST_CELL for cell in cells), cells


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(name)):
        if "://" not in target:
            assert (DOCUMENTS[name].parent / target).is_file(), target


@pytest.mark.parametrize("name", READMES)
def test_readmes_are_linked_with_each_other_and_with_every_document_at_the_top(name: str) -> None:
    linked = set(re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(name)))
    others = {doc for doc in DOCUMENTS if not doc.startswith(("models/", "docs/"))} - {name}
    assert others <= linked


@pytest.mark.parametrize("index", [name for name in DOCUMENTS if name.endswith("/index.md")])
def test_index_of_the_documents_links_every_page(index: str) -> None:
    folder = DOCUMENTS[index].parent
    linked = {folder / target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(index))}
    assert set(folder.rglob("*.md")) - {DOCUMENTS[index]} <= linked


def test_readmes_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        blocks = re.findall(r"```sh\n(.*?)```", text_of(name), re.DOTALL)
        lines = "\n".join(blocks).splitlines()
        return [re.sub(r" +#.*", "", line) for line in lines if not line.startswith("#")]

    assert commands(READMES[0]) == commands(READMES[1])


# A decimal, or a number of three digits or more: sizes, times, limits, dates.
FIGURE = r"\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+|\d{3,}"
CHINESE = [name for name in DOCUMENTS if name.startswith("docs/zh/")]


def english(name: str) -> str:
    return name.replace("docs/zh/", "docs/en/").replace("README.zh-CN", "README")


def prose(name: str) -> str:
    """Return the document without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text_of(name), flags=re.DOTALL | re.M)


@pytest.mark.parametrize("name", ["README.zh-CN.md", *CHINESE])
def test_pages_state_the_same_figures_in_both_languages(name: str) -> None:
    def figures(page: str) -> set[str]:
        return set(re.findall(FIGURE, re.sub(r"`[^`\n]+`|\]\([^)]*\)", "", prose(page))))

    assert figures(name) == figures(english(name))


@pytest.mark.parametrize("name", CHINESE)
def test_cells_of_tables_have_the_same_code_and_figures_in_both_languages(name: str) -> None:
    def cells(page: str) -> list[list[set[str]]]:
        lines = [line for line in prose(page).splitlines() if line.startswith("|")]
        return [
            [set(re.findall(rf"`[^`]+`|{FIGURE}", cell)) for cell in line.split("|")]
            for line in lines
        ]

    assert cells(name) == cells(english(name))


def test_dialects_differ_in_the_same_rows_in_both_languages() -> None:
    def shape(language: str) -> list[tuple[str, str, bool, bool]]:
        cells = list(rows(f"docs/{language}/reference/dialects.md"))[1:]
        return [(row[0], row[1], bool(row[2]), bool(row[3])) for row in cells]

    assert shape("zh") == shape("en")


def test_files_that_the_architecture_names_exist() -> None:
    text = text_of("ARCHITECTURE.md")
    named = re.findall(r"`((?:server|export|tests|benchmarks)/[\w/]+\.py)`", text)
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).is_file(), path


def test_code_map_has_a_row_for_every_module() -> None:
    """`python -m tests.support.code_map --write` brings it up to date."""
    packages = {path.parent.relative_to(ROOT) for path in ROOT.glob("server/**/__init__.py")}
    packages |= {path.parent.relative_to(ROOT) for path in ROOT.glob("export/**/__init__.py")}
    assert packages == set(FOLDERS)
    (found,) = SECTION.findall(text_of("ARCHITECTURE.md"))
    assert found == code_map()


def test_licence_of_the_shipped_model_stands_in_third_parties() -> None:
    licence = (ROOT / "models/bge-small-zh-v1.5/LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c)" in licence and licence in text_of("THIRD_PARTY.md")


def test_every_package_of_the_code_is_installed() -> None:
    """Each folder of code, and each data file beside it, is in the wheel."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("server", "export")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setup["packages"]) == found
    listed = subprocess.run(
        ["git", "ls-files", "server", "export"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    data = {name for name in listed if not name.endswith(".py")}
    packed = {
        path.relative_to(ROOT).as_posix()
        for package, patterns in setup["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    # Built and not stored: by `make manual` and by `make kernels`.
    assert data == packed - {"server/api/web/manual.zip", "server/inference/kernels/kernels.so"}


def test_every_package_of_the_project_has_its_licence_named() -> None:
    listed = {cells[0] for cells in rows("THIRD_PARTY.md")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in re.findall(
        r"^(?:dependencies|export|otel|mcp|qdrant|milvus|postgres|databases-dev|bulk|dev) = \[\n(.*?)^\]",
        project,
        re.M | re.S,
    ):
        for package in re.findall(r'^ +"([a-z0-9-]+)', block, re.M):
            assert package in listed or package == "inkwell-embeddings", package
