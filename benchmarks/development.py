"""Builds development sets for search by words and meaning, in BEIR's layout.

    python -m benchmarks.development --data DATA --out FOLDER

DATA has laws.jsonl.gz (id, title, text) and stsb_zh_valid.tsv (sentence, sentence, score). FOLDER gets a
folder for each set, for `python -m benchmarks.retrieval --beir`: `title` and `title-text`, articles to be
found by the title of their law, which only the second has before the text; `clause`, articles to be found by
a clause of their text; `sts`, sentences to be found by their paraphrases; and `codes`, standards, models,
cases, versions and errors that differ in one number. The same sets every time: all choices are seeded.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workloads import json_lines
from server.system.output import until_reader_leaves

LAWS, SHORTEST = 5_000, 10
HEADING = re.compile("^第[一二三四五六七八九十百千零]+条 ?")
STANDARDS = ("GB/T", "GB", "ISO", "DIN EN", "JB/T")
SUBJECTS = (
    "信息与文献 参考文献著录规则",
    "塑料管材 规格尺寸",
    "焊接材料 验收要求",
    "食品添加剂 使用标准",
    "电能质量 供电电压偏差",
    "机械安全 防护装置",
    "汽车轮胎 性能试验",
)
STATES = ("现行有效，全文替代旧版。", "已废止，由新版代替。", "修订了术语和定义，增加了附录。")


@dataclass(slots=True)
class Set:
    """Documents (title, text) by id, questions by id, and the ids of each question's answers."""

    documents: dict[str, tuple[str, str]] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, title: str = "") -> str:
        id = f"d{len(self.documents)}"
        self.documents[id] = title, text
        return id

    def ask(self, question: str, *answers: str) -> None:
        id = f"q{len(self.questions)}"
        self.questions[id], self.answers[id] = question, list(answers)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    laws = _laws(arguments.data / "laws.jsonl.gz")
    made: dict[str, Callable[[], Set]] = {
        "title": lambda: by_title(laws, with_title=False),
        "title-text": lambda: by_title(laws, with_title=True),
        "clause": lambda: by_clause(laws),
        "sts": lambda: paraphrases(arguments.data / "stsb_zh_valid.tsv"),
        "codes": codes,
    }
    for name, make in made.items():
        _write(make(), arguments.out / name)


def by_title(laws: list[tuple[str, str]], *, with_title: bool) -> Set:
    """Return articles that are found by the title of their law."""
    made = Set()
    of_title: dict[str, list[str]] = {}
    for title, text in laws:
        of_title.setdefault(title, []).append(made.add(text, title if with_title else ""))
    for title, ids in of_title.items():
        made.ask(title, *ids)
    return made


def by_clause(laws: list[tuple[str, str]]) -> Set:
    """Return articles that are found by a clause of theirs, without its beginning."""
    made, chosen = Set(), random.Random(19)
    for title, text in laws:
        id = made.add(text, title)
        clauses = [
            one for one in re.split("[，。；：、]", HEADING.sub("", text)) if 8 <= len(one) <= 30
        ]
        if len(clauses) >= 3 and chosen.random() < 0.5:
            made.ask(chosen.choice(clauses[1:]), id)
    return made


def paraphrases(path: Path) -> Set:
    """Return sentences that are found by others of the same meaning: with a score of 4 or 5."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = {
        one: other for one, other, score in reversed(rows) if float(score) >= 4 and one != other
    }
    made = Set()
    sentences = dict.fromkeys(one for row in rows for one in row[:2] if one not in pairs)
    ids = {sentence: made.add(sentence) for sentence in sentences}
    for question, answer in pairs.items():
        if answer in ids:
            made.ask(question, ids[answer])
    return made


def codes() -> Set:
    """Return texts that differ in one number of a code, found by the code alone or among words."""
    made, chosen = Set(), random.Random(7)
    for _ in range(60):
        standard, number = chosen.choice(STANDARDS), chosen.randint(1000, 9999)
        subject, years = chosen.choice(SUBJECTS), chosen.sample(range(1990, 2024), 3)
        ids = [
            made.add(f"{standard} {number}-{year} {subject}。{chosen.choice(STATES)}")
            for year in years
        ]
        made.add(f"{subject}的常见问题：执行{standard} {number + 1}时请参照{years[0]}年的通知。")
        for year, id in list(zip(years, ids, strict=True))[:2]:
            form = chosen.choice(["{}", "{} 的内容", "请问{}是否现行有效", "哪里可以查{}"])
            made.ask(form.format(f"{standard} {number}-{year}"), id)
    for _ in range(80):
        model, suffixes = (
            f"{chosen.choice('ABXKT')}{chosen.randint(100, 999)}",
            chosen.sample(range(10, 99), 3),
        )
        ids = [
            made.add(
                f"型号 {model}-{suffix} 变频器，额定功率 {chosen.randint(1, 90)} kW，输入电压 380 V。"
            )
            for suffix in suffixes
        ]
        made.ask(
            chosen.choice(["{}", "{}的额定功率", "{} manual"]).format(f"{model}-{suffixes[0]}"),
            ids[0],
        )
    for _ in range(80):
        year, number = chosen.randint(2005, 2024), chosen.randint(1, 999)
        cases = [(year, "01", number), (year + 1, "01", number), (year, "02", number)]
        ids = [
            made.add(f"（{y}）京{c}民终{n}号民事判决书：驳回上诉，维持原判。") for y, c, n in cases
        ]
        form = chosen.choice(["({})京01民终{}号", "（{}）京01民终{}号判决结果"])
        made.ask(form.format(year, number), ids[0])
    for _ in range(60):
        one, two, three = (chosen.randint(1, 12) for _ in range(3))
        number = chosen.randint(1000, 9999)
        fixes = "fixes error E{} when the connection is {} by the peer."
        id = made.add(f"Release {one}.{two}.{three}: {fixes.format(number, 'closed')}")
        made.add(f"Release {one}.{three}.{two + 1}: {fixes.format(number + 1, 'closed')}")
        made.add(f"Release {three}.{two}.{one + 2}: {fixes.format(number - 1, 'opened')}")
        form = chosen.choice(["E{}", "error E{}", "what fixes error E{}?"])
        made.ask(form.format(number), id)
    return made


def _laws(path: Path) -> list[tuple[str, str]]:
    """Return the articles of whole laws, in an order of their own."""
    of_title: dict[str, list[str]] = {}
    for row in json_lines(path):
        if len(row["text"]) >= SHORTEST:
            of_title.setdefault(row["title"], []).append(row["text"])
    titles = list(of_title)
    random.Random(19).shuffle(titles)
    return [(title, text) for title in titles for text in of_title[title]][:LAWS]


def _write(made: Set, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    documents = [
        {"_id": id, "title": title, "text": text} for id, (title, text) in made.documents.items()
    ]
    questions = [{"_id": id, "text": text} for id, text in made.questions.items()]
    for name, rows in (("corpus", documents), ("queries", questions)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = [f"{query}\t{id}\t1\n" for query, ids in made.answers.items() for id in ids]
    (folder / "qrels.tsv").write_text(
        "query\tdocument\tscore\n" + "".join(judged), encoding="utf-8"
    )


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
