"""The changes of one line that a slip would make: a lock not taken, a bound that is one more, a call left out.

Left out is what no test should notice: the text and the arguments of errors and of log lines, and options of
dataclasses and of `zip`.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        """Return the file's text with the change."""
        return source[: self.begin] + self.text + source[self.end :]

    def lines(self, source: str) -> range:
        """Return the lines, from 1, of the statement that is changed, without the statements in it."""
        line = source.count("\n", 0, self.begin) + 1
        around = [
            (node, _last_line(node))
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.stmt) and node.lineno <= line <= _last_line(node)
        ]
        node, last = max(around, key=lambda each: each[0].lineno)
        return range(node.lineno, last + 1)


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
            case ast.Return(value=ast.expr() as value) if not _is_fixed(value):
                yield (*self._span(node), "return None")
            case ast.Raise(exc=ast.expr()):
                yield (*self._span(node), "pass")

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


def _last_line(node: ast.stmt) -> int:
    """Return the last line of a statement, or of its head where it has others in it."""
    body = getattr(node, "body", None)
    last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
    assert last is not None
    return last


def _is_fixed(value: ast.expr) -> bool:
    """Return whether a value is None, or True or False, whose opposite is a change already."""
    return isinstance(value, ast.Constant) and isinstance(value.value, bool | None)


def _declarative(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that no test should notice."""
    match node:
        case ast.Raise(exc=ast.expr() as error):
            yield from ast.walk(error)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            yield from ast.walk(node)
        case ast.ClassDef(decorator_list=decorators):
            for decorator in decorators:
                yield from ast.walk(decorator)
        case ast.keyword(arg="strict" | "daemon"):
            yield from ast.walk(node)
