"""Changes in one place of a file: what can be changed, and the text that comes of it.

Left alone is what no test of behaviour could notice: annotations, decorators, docstrings, log calls, assertions,
`__slots__` and `__all__`, protocols, what stands under TYPE_CHECKING, texts with values in them, `strict=` of `zip` and
`repr=` of `field`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
"""Each comparison, and what it may be turned into."""

OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
"""Each operator of numbers and bits, and what takes its place."""

UNSEEN = {("zip", "strict"), ("field", "repr")}
"""Arguments, with the function that takes them, that change nothing which tests of behaviour see."""

LOGS = frozenset({"log", "_log", "logger", "LOG"})


@dataclass(frozen=True)
class Place:
    """One place that can be changed."""

    kind: str
    start: int
    """Offset in bytes of what is replaced."""
    end: int
    choices: tuple[str, ...]
    """Texts of which one takes its place."""
    line: int
    """Number of the line, from 1, where the change is."""
    statement: tuple[int, int]
    """First and last line of its statement; of a statement with a body, of its head."""
    in_function: bool
    """Whether it runs with a function's calls, and not when the module is imported."""
    decorated: bool
    """Whether that function has decorators, one of which may compile it."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change."""

    path: Path
    """Relative to the root."""
    place: Place
    old: str
    """The line before the change; of a call that goes, all its lines as one."""
    new: str
    text: bytes
    """All of the changed file, with as many lines as before."""

    @property
    def where(self) -> str:
        """The place as editors and compilers write it."""
        return f"{self.path}:{self.place.line}"


def mutant(path: Path, text: bytes, place: Place, choice: str) -> Mutant | None:
    """Returns a file with one change; None when the change is none, or gives no program."""
    changed = text[: place.start] + choice.encode() + text[place.end :]
    try:
        if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text)):
            return None
    except SyntaxError:
        return None
    first, last = text.rfind(b"\n", 0, place.start) + 1, (text + b"\n").find(b"\n", place.end)
    return Mutant(path, place, flat(text[first:last]), flat(changed[first : last + len(changed) - len(text)]), changed)


def flat(text: bytes) -> str:
    """Returns a piece of code on one line."""
    return " ".join(text.decode().split())


def places(text: bytes) -> list[Place]:
    """Returns what can be changed in a file, in the order of the text."""
    finder = _Finder(text)
    finder.visit(ast.parse(text))
    return sorted(finder.found, key=lambda place: (place.start, place.end))


def dotted(node: ast.expr) -> list[str]:
    """Returns the names of `a.b.c`, of what is called too; of other expressions none."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else []


def is_text(node: ast.expr) -> bool:
    """Says whether an expression is seen to be a text, bytes, or a list: its `+`, `*` and `%` are no arithmetic."""
    if isinstance(node, ast.BinOp):
        return is_text(node.left) or is_text(node.right)
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return literal or isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)


def is_type(node: ast.expr) -> bool:
    """Says whether an expression names a type, so that `|` makes a union of types."""
    if isinstance(node, ast.Subscript):
        return is_type(node.value)
    if isinstance(node, ast.BinOp):
        return is_type(node.left) and is_type(node.right)
    if isinstance(node, ast.Constant):
        return node.value is None
    name = (dotted(node) or [""])[-1].lstrip("_")
    return name in ("int", "str", "bytes", "float", "bool", "list", "dict", "tuple", "set", "object") or (
        name[:1].isupper() and any(letter.islower() for letter in name)
    )


def near(number: int, written: str) -> tuple[str, str]:
    """Returns the two neighbours of a number, written as it is."""
    if written[:2].lower() in ("0x", "0b", "0o"):
        form = f"#_{written[1].lower()}" if "_" in written else f"#0{len(written)}{written[1].lower()}"
    else:
        form = "_d" if "_" in written else "d"
    return format(number + 1, form), format(number - 1, form)


class _Finder(ast.NodeVisitor):
    """Walks over a file and notes what can be changed."""

    def __init__(self, text: bytes) -> None:
        self.found: list[Place] = []
        self._text = text
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._statement = (1, 1)
        self._in_function = self._decorated = False

    def visit(self, node: ast.AST) -> None:
        """Visits a node, and knows of which statement it is a part."""
        before = self._statement
        if isinstance(node, ast.stmt):
            self._statement = (node.lineno, head_end(node))
        super().visit(node)
        self._statement = before

    def _all(self, nodes: Sequence[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def _note(self, kind: str, start: int, end: int, choices: Sequence[str]) -> None:
        line = self._text.count(b"\n", 0, start) + 1
        scope = (self._in_function, self._decorated)
        self.found.append(Place(kind, start, end, tuple(choices), line, self._statement, *scope))

    def _note_operator(
        self, kind: str, sides: tuple[ast.expr, ast.expr], sign: str, choices: Sequence[str]
    ) -> None:
        """Notes an operator, which stands somewhere between its sides, among brackets and comments."""
        start = self._end(sides[0])
        between = re.sub(rb"#[^\n]*", lambda found: b" " * len(found[0]), self._text[start : self._start(sides[1])])
        pattern = rb"\s+".join(re.escape(word) for word in sign.encode().split())
        if found := re.search(pattern, between):
            self._note(kind, start + found.start(), start + found.end(), choices)

    # What is left alone.

    def visit_Assert(self, node: ast.Assert) -> None:
        """Assertions say what is so anyway."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts are for people, and Python 3.11 does not know where things stand in them."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Only the value counts, not the annotation."""
        if dotted(node.annotation)[-1:] != ["TypeAlias"]:
            self._all([node.value])

    def visit_Assign(self, node: ast.Assign) -> None:
        """What only names of a class or a module are is left alone."""
        if not any(dotted(target) in (["__slots__"], ["__all__"]) for target in node.targets):
            self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> None:
        """Defaults count, annotations do not."""
        self._all([*node.defaults, *node.kw_defaults])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """The body counts; protocols have none."""
        if not any(names[-1] in ("Protocol", "TypedDict") for base in node.bases if (names := base_names(base))):
            self._all(node.body)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """What stands in `Literal[…]` is a type."""
        if dotted(node.value)[-1:] != ["Literal"]:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Arguments that change nothing which is seen are left alone, and all of what is for types or the log."""
        names = dotted(node.func)
        if LOGS & set(names[:-1]):
            return
        name = names[-1] if names else ""
        seen = [keyword for keyword in node.keywords if (name, keyword.arg) not in UNSEEN]
        self._all([node.func, *(node.args[1:] if name == "cast" else node.args), *seen])

    # Functions.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Defaults belong to the code around, the body to the calls."""
        self.visit(node.args)
        before = self._in_function, self._decorated
        self._in_function, self._decorated = True, self._decorated or bool(node.decorator_list)
        self._all(node.body)
        self._in_function, self._decorated = before

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """As other functions."""
        self.visit_FunctionDef(node)

    # What is changed.

    def visit_Compare(self, node: ast.Compare) -> None:
        """A comparison is turned."""
        sides = [node.left, *node.comparators]
        for left, right, operator in zip(sides, node.comparators, node.ops, strict=False):
            sign, choices = COMPARISONS[type(operator)]
            self._note_operator("comparison", (left, right), sign, choices)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """An operator of numbers or bits is changed."""
        union = isinstance(node.op, ast.BitOr) and is_type(node)
        if type(node.op) in OPERATORS and not is_text(node) and not union:
            sign, choice = OPERATORS[type(node.op)]
            self._note_operator("operator", (node.left, node.right), sign, (choice,))
        if not union:
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """So is one that assigns."""
        if type(node.op) in OPERATORS and not is_text(node.value):
            sign, choice = OPERATORS[type(node.op)]
            self._note_operator("operator", (node.target, node.value), f"{sign}=", (f"{choice}=",))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """`and` becomes `or`, `or` becomes `and`."""
        sign, choice = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._note_operator("and/or", (left, right), sign, (choice,))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A `not` goes."""
        if isinstance(node.op, ast.Not):
            start = self._start(node)
            rest = self._text[start + 3 : self._start(node.operand)]
            self._note("condition", start, start + 3 + len(rest) - len(rest.lstrip()), ("",))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A truth value is swapped, a whole number changed by one."""
        start, end = self._start(node), self._end(node)
        if isinstance(node.value, bool):
            self._note("boolean", start, end, (str(not node.value),))
        elif isinstance(node.value, int):
            self._note("number", start, end, near(node.value, self._text[start:end].decode()))

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call whose result nobody takes goes."""
        called = node.value.value if isinstance(node.value, ast.Await) else node.value
        names = dotted(called) if isinstance(called, ast.Call) else []
        if LOGS & set(names[:-1]) or names[-1:] == ["assert_never"]:
            return
        if isinstance(called, ast.Call):
            lines = (node.end_lineno or node.lineno) - node.lineno
            self._note("call removed", self._start(node), self._end(node), ("pass" + "\n" * lines,))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """A condition is negated; what is for type checkers or for a script is left alone."""
        if dotted(node.test)[-1:] != ["TYPE_CHECKING"] and "__name__" not in ast.unparse(node.test):
            self._negate(node.test)
            self.generic_visit(node)
        else:
            self._all(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        """A condition is negated."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """A condition is negated."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """A condition is negated."""
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        """Notes a condition, unless another change of the same place negates it."""
        turned = isinstance(test, ast.Compare) and len(test.ops) == 1
        negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if not (turned or negated or isinstance(test, ast.Constant)):
            start, end = self._start(test), self._end(test)
            self._note("condition", start, end, (f"not ({self._text[start:end].decode()})",))


def base_names(base: ast.expr) -> list[str]:
    """Returns the names of a class's base, without its parameters."""
    return dotted(base.value) if isinstance(base, ast.Subscript) else dotted(base)


def head_end(node: ast.stmt) -> int:
    """Returns the last line of a statement, of one with a body that of its head."""
    bodies: Iterator[ast.stmt] = (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
    first = min((child.lineno for child in bodies), default=None)
    last = node.end_lineno or node.lineno
    return last if first is None else max(node.lineno, min(last, first - 1))
