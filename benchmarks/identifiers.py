"""How often does the document with exactly the identifier of the query come first?

    python -m benchmarks.identifiers [--model ARTIFACT]

Addresses, versions, dates and codes, 40 of each kind, are made of few numbers in many orders; mail
addresses, domains and names of hosts and files of few words in many orders. A search which ignores
order or adjacency cannot tell them apart. Each stands in one document; the
documents differ in nothing else. Queries are the identifier alone, and the identifier in a question.
One JSON line per kind, mode and query: how many of 40 documents came first.
"""

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import Mapping, Sequence

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.retrieval import Found, searched
from server.inference.model import Model
from server.store.records import Document
from server.system.output import until_reader_leaves

SIZE = 40
# Each kind has its own words: separators do not count, so a.b@c.d in one is a.b.c.d in another.
PEOPLE = ("zhang", "wei", "example", "mail", "org")
SITES = ("shop", "cloud", "north", "test", "net")
HOSTS = ("db", "prod", "main", "eu", "web")
FILES = ("report", "final", "draft", "docx", "backup")
TEXT = "登记编号为 {identifier} 的设备已于上周完成检修，运行正常。"
QUESTIONS = {"alone": "{identifier}", "question": "{identifier} 的设备检修完成了吗？"}


def main() -> None:
    arguments = _arguments()
    model = Model(arguments.model)
    for kind, identifiers in sets().items():
        documents = [Document(each, TEXT.format(identifier=each)) for each in identifiers]
        for question, template in QUESTIONS.items():
            queries = {each: template.format(identifier=each) for each in identifiers}
            named = {"case": "identifiers", "kind": kind, "query": question}

            def show(mode: str, found: Found, named: dict[str, str] = named) -> None:
                first = sum(ids[:1] == [asked] for asked, ids in found.items())
                line = {**named, "mode": mode, "first": first, "of": SIZE}
                machine.show(line, arguments, arguments.model)

            asyncio.run(searched(model, documents, queries, show))


def sets() -> Mapping[str, Sequence[str]]:
    """Return by kind SIZE identifiers that are permutations of each other, always the same."""
    octets = [*itertools.permutations((192, 168, 10, 1)), *itertools.permutations((10, 0, 2, 1))]
    months, days = range(1, 13), range(1, 13)
    return {
        "address": _some([".".join(map(str, each)) for each in octets]),
        "version": _some(
            ["v" + ".".join(map(str, each)) for each in itertools.product((1, 2, 10, 12), repeat=3)]
        ),
        "date": _some([f"2024-{month:02}-{day:02}" for month in months for day in days]),
        "code": _codes(),
        "mail": _some([f"{a}.{b}@{c}.{d}" for a, b, c, d in itertools.permutations(PEOPLE, 4)]),
        "domain": _some([".".join(each) for each in itertools.permutations(SITES, 4)]),
        "host": _some(["-".join(each) for each in itertools.permutations(HOSTS, 3)]),
        "file": _some([f"{a}_{b}.{c}" for a, b, c in itertools.permutations(FILES, 3)]),
    }


def _codes() -> list[str]:
    pairs = list(itertools.permutations((1234, 2015, 5), 2))
    years = [pair for pair in pairs if pair[0] > 1000]
    plain = ["AB-{0}/{1}", "BA-{0}/{1}", "GB/T {0}-{1}", "GB {0}-{1}", "Q/ABC {0}.{1}"]
    dated = ["({0})京01民终{1}号", "({0})京{1}民终01号", "国发〔{0}〕{1}号", "财税〔{0}〕{1}号"]
    shapes = [(shape, pairs) for shape in plain] + [(shape, years) for shape in dated]
    return _some([shape.format(*pair) for shape, used in shapes for pair in used])


def _some(identifiers: list[str]) -> list[str]:
    return random.Random(0).sample(identifiers, SIZE)


def _arguments() -> argparse.Namespace:
    return parser(__doc__).parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
