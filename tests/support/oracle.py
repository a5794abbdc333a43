"""A model of a collection beside a server: what each answer may hold while others write and the server is killed.

Each owner writes its own documents, one request after the other, so the states of its documents form a list. An
answer must be one of the states from the last one that was acknowledged before the question was sent to the last
one whose writing had begun when the answer came: whole, and of no two moments.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# The version of each document by its id; None where there is no collection.
State = Mapping[str, int] | None
# Words that stand in the texts of one group only.
GROUPS = ("inkstone", "paper", "brush", "seal")
CHARACTERS = "墨池笔纸砚书画山水云雨风花鸟鱼虫天地日月星人大小上下左右东西南北春夏秋冬"


# What is counted, the wrong ones last.
KINDS = (
    *("kills", "restarts", "operations", "reindexes", "searches"),
    *("losses", "ghosts", "duplicates", "mixed", "others"),
)


# A text has this many versions: the first, and those whose metadata alone was changed.
CHANGES = 64


def group_of(version: int) -> int:
    return version // CHANGES % len(GROUPS)


def can_change(version: int) -> bool:
    """Return whether there is a next version of the same text."""
    return version % CHANGES < CHANGES - 1


def patch_to(version: int) -> dict[str, Any]:
    """Return the merge patch that makes this version of the one before: every other one has a mark."""
    change = version % CHANGES
    return {"version": version, "mark": {"change": change} if change % 2 else None}


def document_of(owner: str, id: str, version: int) -> dict[str, Any]:
    """Return the one document of an id and a version: some are a chunk long, some several."""
    first = version - version % CHANGES
    choose = random.Random(f"{id} {first}")
    text = "。".join(
        "".join(choose.choices(CHARACTERS, k=12)) for _ in range(choose.randint(1, 12))
    )
    group = group_of(version)
    patch = {key: each for key, each in patch_to(version).items() if each is not None}
    metadata = {"owner": owner, "group": group, **patch}
    return {"id": id, "text": f"{GROUPS[group]} {id} {first} {text}", "metadata": metadata}


class Ledger:
    """The states of one owner's documents, oldest first; at most the last is not acknowledged."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        # Held by the one thread that writes, until it knows what became of its write.
        self.writing = threading.RLock()
        self._lock = threading.Lock()
        self._states: list[State] = [None]
        self._settled = 0

    @property
    def now(self) -> State:
        """The last state that was acknowledged."""
        return self._states[self._settled]

    @property
    def begun(self) -> State:
        """The state that a running write will lead to."""
        return self._states[-1]

    def begin(self, state: State) -> None:
        with self._lock:
            self._states.append(state)

    def settle(self, *, done: bool) -> None:
        """Called when it is known whether the running write was done."""
        with self._lock:
            if not done:
                self._states.pop()
            self._settled = len(self._states) - 1

    def mark(self) -> int:
        """Return the place from which states count for a question that is sent now."""
        return self._settled

    def since(self, mark: int) -> list[State]:
        with self._lock:
            return self._states[mark:]


@dataclass(slots=True)
class Verdicts:
    """What was counted by all threads."""

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(KINDS, 0)))
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def fail(self, what: str, said: str) -> None:
        """what: losses, ghosts, duplicates, mixed or others."""
        with self._lock:
            self.counts[what] += 1
            self.wrong.append(f"{what}: {said}")

    def judge(
        self,
        question: str,
        found: Sequence[Mapping[str, Any]],
        states: Sequence[State],
        keeps: Callable[[int], bool],
        owner: str,
    ) -> None:
        """Judge the documents of one owner in an answer. keeps: whether a version should be found."""
        versions: dict[str, int] = {}
        for each in found:
            id, version = each["id"], each["metadata"]["version"]
            if id in versions:
                self.fail("duplicates", f"{question}: {id}")
            versions[id] = version
            whole = document_of(owner, id, version)
            if each["text"] not in whole["text"] or each["metadata"] != whole["metadata"]:
                self.fail("mixed", f"{question}: {id} {version} is {each['text']!r}")
        wanted = [
            {id: each for id, each in (state or {}).items() if keeps(each)} for state in states
        ]
        if versions not in wanted:
            self.fail(*_difference(question, versions, wanted))

    def judge_count(self, question: str, found: int, counts: Iterable[int]) -> None:
        if found not in (known := set(counts)):
            what = "losses" if found < min(known) else "ghosts" if found > max(known) else "mixed"
            self.fail(what, f"{question}: {found} of {sorted(known)}")


def _difference(
    question: str, found: Mapping[str, int], wanted: Sequence[Mapping[str, int]]
) -> tuple[str, str]:
    """Return the kind of a difference, and what it is."""
    pairs, known = set(found.items()), [set(each.items()) for each in wanted]
    if ghosts := pairs - set().union(*known):
        return "ghosts", f"{question}: {sorted(ghosts)[:5]} in none of {len(known)} states"
    if lost := set.intersection(*known) - pairs:
        return "losses", f"{question}: {sorted(lost)[:5]} in all of {len(known)} states"
    return "mixed", f"{question}: {len(pairs)} documents are none of {len(known)} states"
