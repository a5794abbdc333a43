"""Changes one line of the product at a time and reports the changes that no test notices.

    python -m tests.support.mutants --count 100 --seed 1 server/store server/inference/lanes.py

A change is one that a slip would make: a comparison that includes its bound, a lock that is not taken, a
call that is left out, a number that is one more. Of all of them `--count` are drawn by `--seed`. Each is
written into a copy of the project, where the tests of its room run until one fails. What survives is
printed as a diff of one line: a test is missing there, or the change is no change (equivalent).
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Where an error loses data, mixes up answers or stops the server.
RISKY = (
    "server/store",
    "server/collections",
    "server/inference/tokenizer.py",
    "server/inference/fast_wordpiece.py",
    "server/inference/lanes.py",
    "server/system/atomic_file.py",
    "export/artifact.py",
)
COPIED = ("server", "export", "benchmarks", "deploy", "tests", "models", "pyproject.toml", "docs")
# Tests of a room that say much about modules of another.
ALSO = {
    "server/store": ("tests/store", "tests/collections"),
    "server/collections": ("tests/collections", "tests/api/test_collections.py"),
    "server/inference": ("tests/inference",),
    "server/system": ("tests/system", "tests/store/test_maintenance.py"),
    "export": ("tests/export/test_artifact.py", "tests/export/test_up_to_date.py"),
}
TIMEOUT_S = 240.0

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.Mod: "*",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the text from `begin` to `end` of a file becomes `text`."""

    path: Path
    begin: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.begin] + self.text + source[self.end :]


def mutants_of(path: Path, source: str) -> Iterator[Mutant]:
    """Yield the changes of one file that are still Python."""
    for begin, end, text in _Finder(source).found():
        mutant = Mutant(path, begin, end, text)
        try:
            ast.parse(mutant.apply(source))
        except SyntaxError:
            continue
        yield mutant


class _Finder:
    """Finds places in a source text; offsets are in characters."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def found(self) -> Iterator[tuple[int, int, str]]:
        tree = ast.parse(self._source)
        left_out = {id(part) for node in ast.walk(tree) for part in _declarative(node)}
        for node in ast.walk(tree):
            if id(node) not in left_out:
                yield from self._of(node)

    def _of(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                yield self._between(left, right, COMPARISONS[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                yield self._between(left, right, ARITHMETIC[type(op)])
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield self._between(left, right, "or" if isinstance(op, ast.And) else "and")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                begin, end = self._span(node)
                yield begin, end, self._text(operand)
            case ast.Constant(value=bool(value)):
                yield (*self._span(node), str(not value))
            case ast.Constant(value=int(value)) if not isinstance(value, bool):
                yield (*self._span(node), str(value + 1))
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield (*self._span(test), f"(not ({self._text(test)}))")
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield (*self._span(node), "pass")
            case ast.Assign() | ast.AugAssign() if isinstance(self._target(node), ast.Attribute):
                yield (*self._span(node), "pass")
            case ast.With(items=[ast.withitem(context_expr=context)]) if self._is_lock(context):
                line = self._starts[node.lineno - 1]
                begin, end = self._span(context)
                yield line + node.col_offset, end, "if True"
            case ast.AsyncWith(items=[ast.withitem(context_expr=context)]):
                line = self._starts[node.lineno - 1]
                if self._is_lock(context):
                    yield line + node.col_offset, self._span(context)[1], "if True"
            case ast.Return(value=ast.expr()):
                yield (*self._span(node), "return None")

    @staticmethod
    def _target(node: ast.Assign | ast.AugAssign) -> ast.expr:
        return node.targets[0] if isinstance(node, ast.Assign) else node.target

    def _is_lock(self, context: ast.expr) -> bool:
        return re.search(r"lock|gate|writing|transaction", self._text(context)) is not None

    def _between(self, left: ast.expr, right: ast.expr, sign: str) -> tuple[int, int, str]:
        """Return the change of the operator that stands between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        around = self._source[begin:end]
        closing = re.match(r"[\s)\]]*", around)
        opening = re.search(r"[\s(]*$", around)
        assert closing is not None and opening is not None
        return begin + closing.end(), begin + max(closing.end(), opening.start()), f" {sign} "

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(
            node.end_lineno, node.end_col_offset
        )

    def _at(self, line: int, column: int) -> int:
        # Columns of `ast` are in bytes.
        return self._starts[line - 1] + len(
            self._lines[line - 1].encode()[:column].decode(errors="ignore")
        )

    def _text(self, node: ast.expr) -> str:
        begin, end = self._span(node)
        return self._source[begin:end]


def _declarative(node: ast.AST) -> Iterator[ast.AST]:
    """Yield parts that no test can notice: options of dataclasses and of `zip`."""
    match node:
        case ast.ClassDef(decorator_list=decorators):
            for decorator in decorators:
                yield from ast.walk(decorator)
        case ast.keyword(arg="strict" | "daemon"):
            yield from ast.walk(node)


def selected_tests(path: Path) -> list[str]:
    """Return the tests that run for a module, nearest first."""
    folder = ROOT / "tests" / Path(*path.parts[1:-1])
    near = sorted(folder.glob(f"test_{path.stem}*.py"))
    room = next((tests for start, tests in ALSO.items() if str(path).startswith(start)), ())
    return list(dict.fromkeys([*(str(each.relative_to(ROOT)) for each in near), *room]))


def drawn(paths: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return `count` changes of all in these files and folders, drawn by the seed."""
    found: list[Mutant] = []
    for given in paths:
        place = ROOT / given
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            path = file.relative_to(ROOT)
            found += mutants_of(path, file.read_text(encoding="utf-8"))
    return random.Random(seed).sample(found, min(count, len(found)))


class Trial:
    """A copy of the project in which changes are tried, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copy(source, target)

    def survives(self, mutant: Mutant) -> bool:
        """Return whether the tests pass with the change."""
        file = self._folder / mutant.path
        source = file.read_text(encoding="utf-8")
        file.write_text(mutant.apply(source), encoding="utf-8")
        try:
            return self.passes(selected_tests(mutant.path))
        finally:
            file.write_text(source, encoding="utf-8")

    def passes(self, tests: Sequence[str]) -> bool:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        # In a group of its own: a change may leave servers behind.
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        try:
            return process.wait(TIMEOUT_S) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("paths", nargs="*", default=RISKY)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    chosen = drawn(given.paths, given.count, given.seed)
    local = threading.local()
    started, survivors, done = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:

        def survives(mutant: Mutant) -> bool:
            if not hasattr(local, "trial"):
                local.trial = Trial(Path(tempfile.mkdtemp(dir=folder)))
            found: bool = local.trial.survives(mutant)
            return found

        for mutant, survived in zip(chosen, pool.map(survives, chosen), strict=True):
            done += 1
            if survived:
                survivors.append(mutant)
                print(f"survived: {_shown(mutant)}", flush=True)
    seconds = time.monotonic() - started
    print(f"{done} changes, {done - len(survivors)} noticed, {len(survivors)} not, {seconds:.0f} s")
    return 0


def _shown(mutant: Mutant) -> str:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    line = source.count("\n", 0, mutant.begin)
    before = source.splitlines()[line].strip()
    after = mutant.apply(source).splitlines()[line].strip()
    return f"{mutant.path}:{line + 1}\n  - {before}\n  + {after}"


if __name__ == "__main__":
    sys.exit(main())
