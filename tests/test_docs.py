"""The documents say what the code does: settings, errors, routes, metrics, targets, version."""

import dataclasses
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server import VERSION, errors
from server.api import replies
from server.api.dialects import openai, tei
from server.app import every_operation
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


# --- settings -------------------------------------------------------------------------------------

SETTINGS = dataclasses.fields(Config)
SETTING_ROWS = [
    cells
    for cells in rows("docs/en/reference/settings.md")
    if len(cells) == 5 and cells[1].startswith("INKWELL_")
]


def flag(setting: "dataclasses.Field[Any]") -> str:
    return "--" + setting.name.replace("_", "-")


def test_settings_stand_in_the_order_of_the_code() -> None:
    assert [cells[0] for cells in SETTING_ROWS] == [flag(setting) for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_its_variable_default_and_limits(
    setting: "dataclasses.Field[Any]",
) -> None:
    found = next(cells for cells in SETTING_ROWS if cells[0] == flag(setting))
    _, variable, default, limits, meaning = found
    assert variable == env_name(setting.name)
    assert default == ("(empty)" if setting.default in ("", None) else str(setting.default))
    if bounds := setting.metadata["limits"]:
        assert limits == f"{bounds['low']} to {bounds['high']}"
    assert len(meaning) > len("Name.")


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
ERROR_ROWS = {
    cells[0]: cells for cells in rows("docs/en/reference/errors.md") if len(cells) in (3, 6)
}


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_every_answer_is_documented_with_its_status_in_each_dialect(
    kind: type[ServerError],
) -> None:
    error = made(kind)
    in_openai, in_tei = openai.error_reply(error), tei.error_reply(error)
    assert ERROR_ROWS[kind.code][1:5] == [
        str(replies.status_of(error)),
        re.findall(r'"type":"(\w+)"', in_openai.body.decode())[0],
        str(in_tei.status),
        re.findall(r'"error_type":"(\w+)"', in_tei.body.decode())[0],
    ]
    assert isinstance(error, CallerError | RetryableError) or in_openai.status >= 500


def test_every_error_of_the_command_line_is_documented() -> None:
    codes = {kind.code for kind in LEAVES if issubclass(kind, StartupError)}
    assert codes <= {code for code, cells in ERROR_ROWS.items() if len(cells) == 3}


def test_no_error_is_documented_that_does_not_exist() -> None:
    assert ERROR_ROWS.keys() - {"code", "dialect"} == {kind.code for kind in LEAVES}


def test_codes_of_base_classes_are_named() -> None:
    def bases(kind: type[ServerError]) -> Iterator[type[ServerError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from bases(child)

    for kind in bases(ServerError):
        assert f"`{kind.code}`" in text_of("docs/en/reference/errors.md")


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


def test_every_metric_is_documented() -> None:
    rendered = Metrics().render().decode()
    names = set(re.findall(r"^# HELP (inkwell_\w+)", rendered, re.M))
    assert "inkwell_requests_total" in names
    for name in sorted(names):
        if not name.endswith("_created"):
            assert f"`{name}`" in text_of("docs/en/reference/http.md"), name


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


def test_every_locked_package_has_its_telemetry_told() -> None:
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "locks/run.txt").read_text("utf-8"), re.M)
    assert set(locked) <= {cells[0] for cells in rows("docs/en/explanation/egress.md")}


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
    # Built and not stored: `make manual` writes it.
    assert data == packed - {"server/api/web/manual.zip"}


def test_every_package_of_the_project_has_its_licence_named() -> None:
    listed = {cells[0] for cells in rows("THIRD_PARTY.md")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in re.findall(
        r"^(?:dependencies|export|otel|dev) = \[\n(.*?)^\]", project, re.M | re.S
    ):
        for package in re.findall(r'^ +"([a-z0-9-]+)', block, re.M):
            assert package in listed or package == "inkwell-embeddings", package
