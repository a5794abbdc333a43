"""Command line: python docs/site/build.py [--out build/manual] [--pack FILE.zip]

Builds the manual in both languages from the Markdown of docs/, as static pages that load nothing from
elsewhere. Packed, it is the one file that a server answers /manual from.
"""

import argparse
import importlib.metadata
import os
import posixpath
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
# Sphinx' names of the languages, by the folders of docs/.
LANGUAGES = {"en": "en", "zh": "zh_CN"}
READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
# Pages from outside docs/: for each file of the repository its page of the site.
PROJECT = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY.md")
OUTSIDE = {
    **{readme: f"{language}/readme.md" for language, readme in READMES.items()},
    **{name: f"en/project/{name.lower()}" for name in PROJECT},
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
# A line that ends in Chinese and one that goes on in it: Markdown would put a blank between them.
BROKEN_LINE = re.compile(
    r"(?<=[\u3001-\u3015\u4e00-\u9fff\uff01-\uff5e\u201c\u201d])\n *(?=[\u201c\u4e00-\u9fff\uff08`\[])"
)
# The earliest time of a zip file: the same pages give the same bytes.
LONG_AGO = (1980, 1, 1, 0, 0, 0)
# Packages of which parts are among the pages: scripts, styles, the search.
CONTAINED = ("furo", "pygments", "snowballstemmer", "sphinx")
# Sphinx evaluates a text as a script, which a server's policy forbids. Chinese has one plural form, "0".
EVALUATED = re.compile(r"new Function\(\s*\"n\",\s*`return \(\$\{catalog\.plural_expr\}\)`,\s*\)")
NOT_EVALUATED = "() => Number(catalog.plural_expr)"
# What Sphinx leaves beside the pages.
LEFT = (".buildinfo", "objects.inv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the manual; return the exit status."""
    given = _parser().parse_args(arguments)
    sources = given.out.parent / f"{given.out.name}-source"
    for folder in (sources, given.out):
        shutil.rmtree(folder, ignore_errors=True)
    for page, text in pages():
        (sources / page).parent.mkdir(parents=True, exist_ok=True)
        (sources / page).write_text(text, encoding="utf-8")
    copy_images(sources)
    with ThreadPoolExecutor() as threads:
        failed = list(
            threads.map(lambda language: _sphinx(language, sources, given.out), LANGUAGES)
        )
    if any(failed):
        return 1
    shutil.copy(SITE / "index.html", given.out)
    write_licences(given.out / "licences")
    if given.pack is not None:
        pack(given.out, given.pack)
    return 0


# --- sources --------------------------------------------------------------------------------------


def pages() -> Iterator[tuple[str, str]]:
    """Yield each page of the site, such as en/how-to/clients.md, with its Markdown."""
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*/**/*.md")}
    places = {name: name.removeprefix("docs/") for name in sorted(files)} | OUTSIDE
    for name, page in places.items():
        text = with_links((ROOT / name).read_text(encoding="utf-8"), name, places)
        language, _, rest = page.partition("/")
        text = joined(text) if language == "zh" else text
        yield page, text + contents(text, language, places) if rest == "index.md" else text


def with_links(text: str, name: str, places: dict[str, str]) -> str:
    """Return the page with its links as they are in the site; a link to other files is its text."""

    def replaced(link: re.Match[str]) -> str:
        path, _, anchor = link["target"].partition("#")
        if "://" in path or not path or link["target"].startswith("mailto:"):
            return link[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if link["image"]:
            return f"![{link['text']}]({_relative(f'images/{posixpath.basename(file)}', here)})"
        if file not in places:
            return link["text"]
        there, suffix = places[file], f"#{anchor}" if anchor else ""
        if there.partition("/")[0] == here.partition("/")[0]:
            return f"[{link['text']}]({_relative(there, here)}{suffix})"
        # The other language is another build.
        address = _relative(there, here).removesuffix(".md") + ".html"
        return f'<a href="{address}{suffix}">{link["text"]}</a>'

    here = places[name]
    # Blocks of code have no links.
    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


def joined(text: str) -> str:
    """Return a Chinese page without the line breaks between Chinese characters, outside of code."""
    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else BROKEN_LINE.sub("", part) for part in parts)


def contents(index: str, language: str, places: dict[str, str]) -> str:
    """Return the tables of contents that the index's own headings and links give."""
    made, seen = [_toctree("", ["readme"])], {"readme"}
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        linked = [link["target"].partition("#")[0] for link in LINK.finditer(section)]
        fresh = [each.removesuffix(".md") for each in linked if each.endswith(".md")]
        names = [each for each in dict.fromkeys(fresh) if each not in seen and ".." not in each]
        seen.update(names)
        made.append(_toctree(section.splitlines()[0], names))
    project = [
        page.removeprefix(f"{language}/").removesuffix(".md")
        for page in places.values()
        if page.startswith(f"{language}/project/")
    ]
    return "".join([*made, _toctree("Project", project) if project else ""])


def _toctree(caption: str, names: Sequence[str]) -> str:
    head = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{head}\n" + "\n".join(names) + "\n```\n"


def copy_images(sources: Path) -> None:
    """Copy every image that a page shows into each language's folder of images."""
    for name in ("README.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))):
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in LINK.finditer(text):
            if link["image"] and "://" not in link["target"]:
                file = (ROOT / name).parent / link["target"]
                for language in LANGUAGES:
                    folder = sources / language / "images"
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, folder / file.name)


def _relative(there: str, here: str) -> str:
    language = here.partition("/")[0]
    if there.startswith("images/"):
        there = f"{language}/{there}"
    return posixpath.relpath(there, posixpath.dirname(here))


# --- pages ----------------------------------------------------------------------------------------


def _sphinx(language: str, sources: Path, out: Path) -> int:
    # Warnings are errors: a link that leads nowhere is one.
    command = [
        sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html",
        "-c", str(SITE), "-d", str(sources / f".doctrees-{language}"),
        "-D", f"language={LANGUAGES[language]}", str(sources / language), str(out / language),
    ]  # fmt: skip
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    status = subprocess.run(command, env=environ).returncode
    if status == 0:
        _clean(out / language)
    return status


def _clean(folder: Path) -> None:
    """Remove what no page needs, and the text that Sphinx evaluates."""
    script = folder / "_static/doctools.js"
    text, found = EVALUATED.subn(NOT_EVALUATED, script.read_text(encoding="utf-8"))
    assert found == 1, "doctools.js of this Sphinx differs: does it still evaluate a text?"
    script.write_text(text, encoding="utf-8")
    shutil.rmtree(folder / "_sources", ignore_errors=True)
    # Only a debugger of styles would read them.
    for path in (folder / "_static").rglob("*.map"):
        path.unlink()
    for name in LEFT:
        (folder / name).unlink(missing_ok=True)


def write_licences(folder: Path) -> None:
    """Write the licence texts of the packages that the pages contain parts of."""
    folder.mkdir()
    for package in CONTAINED:
        for file in importlib.metadata.files(package) or ():
            if file.parent.name == "licenses" and file.name != "AUTHORS":
                (folder / f"{package}.txt").write_text(file.read_text(), encoding="utf-8")


def pack(folder: Path, file: Path) -> None:
    """Write every file of the folder into one zip, in the order of their names."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), LONG_AGO)
                info.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(info, path.read_bytes())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build the manual in both languages.")
    parser.add_argument("--out", type=Path, default=ROOT / "build/manual", help="folder to write")
    parser.add_argument("--pack", type=Path, help="zip to write, for a server")
    return parser


if __name__ == "__main__":
    sys.exit(main())
