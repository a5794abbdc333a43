"""The requests that the documents show, sent to the real server, and the answers beside them.

An example is a block of curl commands; a block of code that follows it at once is its answer. Run

    python -m tests.support.examples          # compare the answers, status 1 where one differs
    python -m tests.support.examples --write  # print those that differ into the documents

Answers are shown shortened: of a vector the first numbers, floats with four decimals, of a digest
the beginning, of the reply's head the content type and the `x-` headers. What changes with every
run (times, bytes on the disk) is shown but not compared.
"""

import json
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from server.system.cpu import cpu_features, int8_instruction_set
from tests.support.processes import ROOT, Server, serving

# In this order: each page begins with what the ones before have stored.
PAGES = (
    "docs/en/reference/http.md",
    "docs/en/reference/search.md",
    "docs/en/reference/search-options.md",
    "README.md",
)
ARTIFACT = ROOT / "models" / "bge-small-zh-v1.5" / "onnx-int8"
BLOCKS = re.compile(
    r"```sh\n(?P<commands>.*?)```\n(?:```(?:json)?\n(?P<answer>.*?)```)?", re.DOTALL
)
ADDRESS = "localhost:8000"
WIDTH = 110
SHOWN_NUMBERS = 2
LONGEST_LIST = 8
DIGEST = re.compile(r"[0-9a-f]{40,}")
VOLATILE = re.compile(
    r'(?<="total_duration":)\d+|(?<="bytes":)\d+|(?<="changed":")[^"]+|(?<=-time: )\d+'
    r'|(?<="id":")[0-9a-f]{12}-[0-9a-f]+|(?<="next":")W[\w-]{20,}'
)
FLOAT = re.compile(r"(-?\d+\.\d+)")
OF_EXPORT = re.compile(r"[0-9a-f]{12}\.\.\.|\b[0-9a-f]{32}\b")
PRINTED_ON = "avx512_vnni"
# Exports on CPUs of other makers may differ in the last bit of a calibrated scale, and what is rounded the other way
# multiplies through the layers.
ROUNDING = 0.008
# CPUs without exact int8 products move a number by a few thousandths, see docs/en/explanation/cpu.md.
OTHER_CPU = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """One curl command. head: whether the reply's head is shown (`-i`)."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    head: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One block of commands. answer: None where the page shows none; begin, end: where it is."""

    page: str
    commands: str
    requests: Sequence[Request]
    answer: str | None
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An example with what the server answered, as a page shows it."""

    example: Example
    statuses: Sequence[int]
    answer: str

    @property
    def differs(self) -> bool:
        shown = self.example.answer
        return shown is not None and not same(shown, self.answer, exact=printed_here())


# --- reading --------------------------------------------------------------------------------------


def examples(page: str, text: str) -> Iterator[Example]:
    """Yield the examples of a page in their order."""
    for block in BLOCKS.finditer(text):
        words = shlex.split(block["commands"].replace("\\\n", " "), comments=True)
        if words[:1] == ["curl"]:
            requests = [_request(command) for command in _commands(words)]
            begin, end = block.span("answer")
            yield Example(page, block["commands"], requests, block["answer"], begin, end)


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """Split the words of a block into the words behind each `curl`."""
    starts = [at for at, word in enumerate(words) if word == "curl"]
    for begin, end in zip(starts, [*starts[1:], len(words)], strict=True):
        yield list(words[begin + 1 : end])


@dataclass(slots=True)
class _Command:
    method: str = ""
    target: str = ""
    body: str = ""
    head: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def _request(words: list[str]) -> Request:
    """Return what a curl command sends; options that no page uses are an error."""
    found, rest = _Command(), iter(words)
    for word in rest:
        match word:
            case "-i":
                found.head = True
            case "-I":
                found.method = "HEAD"
            case "-X":
                found.method = next(rest)
            case "-H":
                name, _, value = next(rest).partition(": ")
                found.headers[name] = value
            case "-d":
                found.body = next(rest)
            case _:
                assert word.startswith(ADDRESS), f"unknown in an example: {word}"
                found.target = word.removeprefix(ADDRESS)
    method = found.method or ("POST" if found.body else "GET")
    return Request(method, found.target, found.headers, found.body.encode(), found.head)


# --- showing --------------------------------------------------------------------------------------


def show(request: Request, reply: httpx.Response) -> str:
    """Return the reply as a page shows it."""
    is_json = reply.headers.get("content-type", "").startswith("application/json")
    body = _json(reply.json()) if is_json else reply.text
    return "\n".join([*_head(reply), "", body] if request.head else [body]).rstrip("\n")


def _head(reply: httpx.Response) -> Iterator[str]:
    yield f"HTTP/1.1 {reply.status_code} {reply.reason_phrase}"
    for name, value in reply.headers.items():
        if name == "content-type" or (name.startswith("x-") and name != "x-request-id"):
            yield f"{name}: {value}"


def _json(value: Any, indent: int = 0) -> str:
    """Return the value on one line where it fits, else with its items on lines that are filled."""
    line = _compact(value)
    if indent + len(line) <= WIDTH or line.endswith("...]") or not isinstance(value, list | dict):
        return line
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = [""]
    for key, item in _items(value):
        room = WIDTH - indent - len(lines[-1]) - len(",,")
        if lines[-1] and len(key) + len(_compact(item)) > room:
            lines.append("")
        column = indent + 1 + len(lines[-1]) + len(key)
        lines[-1] += f"{key}{_json(item, column)},"
    return opening + f"\n{' ' * (indent + 1)}".join(lines)[:-1] + closing


def _items(value: list[Any] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each item with what stands before it: its key, or nothing in a list."""
    if isinstance(value, list):
        yield from (("", item) for item in value)
    else:
        yield from ((f"{json.dumps(key)}:", item) for key, item in value.items())


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        items = (f"{json.dumps(key)}:{_compact(item)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, list):
        long = len(value) > LONGEST_LIST
        items = (_compact(item) for item in (value[:SHOWN_NUMBERS] if long else value))
        return f"[{','.join(items)}{',...' if long else ''}]"
    if isinstance(value, float):
        return str(round(value, 4))
    if isinstance(value, str) and DIGEST.fullmatch(value):
        value = f"{value[:12]}..."
    return json.dumps(value, ensure_ascii=False)


def same(shown: str, answer: str, *, exact: bool) -> bool:
    """Return whether two shown answers agree but for line breaks, volatile parts and last digits.

    exact: whether this machine is one of the kind that the answers were printed on. On another,
    numbers may be further apart.
    """
    volatile = re.compile(f"{VOLATILE.pattern}|{OF_EXPORT.pattern}")
    tolerance = ROUNDING if exact else OTHER_CPU
    one, other = (FLOAT.split(volatile.sub("N", _joined(text))) for text in (shown, answer))
    return len(one) == len(other) and all(
        abs(float(left) - float(right)) <= tolerance if at % 2 else left == right
        for at, (left, right) in enumerate(zip(one, other, strict=True))
    )


def printed_here() -> bool:
    """Return whether this machine computes vectors like the one that printed the answers."""
    return int8_instruction_set(cpu_features()) == PRINTED_ON


def _joined(text: str) -> str:
    """Return the text with its line breaks and indents taken out."""
    return re.sub(r"\n *", "", text)


# --- asking ---------------------------------------------------------------------------------------


def answers(server: Server) -> Iterator[Answered]:
    """Send every example of every page, in order, and yield what came back."""
    with server.client() as client:
        for page in PAGES:
            for example in examples(page, (ROOT / page).read_text(encoding="utf-8")):
                replies = [_send(client, request) for request in example.requests]
                shown = map(show, example.requests, replies)
                statuses = [reply.status_code for reply in replies]
                yield Answered(example, statuses, "\n".join(shown) + "\n")


def _send(client: httpx.Client, request: Request) -> httpx.Response:
    return client.request(
        request.method, request.path, headers=dict(request.headers), content=request.body
    )


def write(answered: Sequence[Answered]) -> None:
    """Print the answers that differ into the pages and their Chinese twins."""
    for page in PAGES:
        of_page = [one for one in answered if one.example.page == page]
        for path in _twins(page):
            text = path.read_text(encoding="utf-8")
            places = list(examples(page, text))
            for one, place in reversed(list(zip(of_page, places, strict=True))):
                if one.differs:
                    text = text[: place.begin] + one.answer + text[place.end :]
            path.write_text(text, encoding="utf-8")


def _twins(page: str) -> list[Path]:
    """Return the page, and the Chinese page with the same examples if there is one."""
    pages = dict.fromkeys([page, page.replace("docs/en/", "docs/zh/")])
    return [ROOT / each for each in pages if (ROOT / each).is_file()]


def main(arguments: Sequence[str]) -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(ARTIFACT, Path(folder)) as server,
    ):
        answered = list(answers(server))
    if "--write" in arguments:
        write(answered)
        return 0
    wrong = [one for one in answered if one.differs]
    for one in wrong:
        report = f"{one.example.page}\n{one.example.commands}\n{one.example.answer}\n{one.answer}"
        sys.stdout.write(report)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
