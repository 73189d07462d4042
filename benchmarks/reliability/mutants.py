"""Mutants: small changes of a Python source that a good test notices.

What is changed, one place at a time:

- operators of arithmetic (``+ -``, ``* /``, ``**`` and ``//`` and ``%`` to ``*``), of sets (``& |``), ``and`` and
  ``or``; ``not x`` and ``-x`` become ``x``;
- comparisons, to the neighbour (``<`` to ``<=``) and to the opposite (``<`` to ``>=``); ``==``, ``is``, ``in``;
- numbers (one more), truth values, strings (other letters);
- names of functions that come in pairs (`PAIRS`: ``min`` and ``max``, ``sum`` and ``mean``, ...).

What is not, because no test could or should notice it:

- docstrings, annotations, type aliases, imports, ``__all__``, ``Literal[...]``, blocks of ``if TYPE_CHECKING``;
- texts: what is raised, arguments of an error class, of ``logger.*`` and ``warnings.*``, f-strings, the string that
  ``join`` puts between others, any string with a blank in it;
- ``strict=`` of ``zip``, an assertion of the code about itself;
- numbers given to a name in capitals at module level: sizes of blocks, numbers of rounds, thresholds between two
  algorithms, which change the speed and not the result.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_TWINS = ("min max", "any all", "floor ceil", "sin cos", "zeros ones", "zeros_like ones_like", "argmin argmax")
_TWINS += ("clamp_min clamp_max", "minimum maximum", "sum mean", "sqrt square", "exp expm1", "log log1p")
PAIRS = {a: b for twins in _TWINS for a, b in (twins.split(), twins.split()[::-1])}


@dataclass(frozen=True)
class Mutant:
    """One change of one source.

    Attributes
    ----------
    line
        Where, counted from one.
    kind
        Class of the syntax node.
    before, after
        The expression or statement, as Python writes it.
    span
        First and last line and column (bytes) of what is replaced.
    statement
        First and last line of the innermost statement around it; for a compound one, of its head.
    in_function
        Whether it runs when a function is called, and not when the module is imported.
    """

    line: int
    kind: str
    before: str
    after: str
    span: tuple[int, int, int, int]
    statement: tuple[int, int]
    in_function: bool

    def apply(self, source: str) -> str:
        """The changed source; lines after a change of several lines move up."""
        lines = source.encode().splitlines(keepends=True)
        first, start, last, end = self.span
        head, tail = lines[first - 1][:start], lines[last - 1][end:]
        lines[first - 1 : last] = [head + self.after.encode() + tail]
        return b"".join(lines).decode()


def find(source: str) -> list[Mutant]:
    """Every mutant of a source, in the order of the text."""
    return sorted(_Finder().run(ast.parse(source)), key=lambda m: (m.span, m.after))


class _Finder:
    def __init__(self) -> None:
        self.found: list[Mutant] = []
        self.statement = (1, 1)
        self.functions = 0

    def run(self, tree: ast.Module) -> list[Mutant]:
        for statement in tree.body:
            self._statement(statement, top=True)
        return self.found

    def _statement(self, node: ast.stmt, *, top: bool = False) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise) or _is_text(node) or _is_type_checking(node):
            return
        if top and isinstance(node, ast.Assign | ast.AnnAssign) and _is_declaration(node):
            return
        body = getattr(node, "body", None)
        before, self.statement = self.statement, (node.lineno, body[0].lineno - 1 if body else node.end_lineno or 0)
        function = isinstance(node, ast.FunctionDef)
        if isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
            changed = ast.AugAssign(node.target, BINARY[type(node.op)](), node.value)
            self._add(node, changed, statement=True)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params"):
                continue
            self.functions += function and name == "body"
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self._visit(child)
            self.functions -= function and name == "body"
        self.statement = before

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._statement(node)
            return
        if isinstance(node, ast.JoinedStr | ast.pattern) or _is_message(node) or _is_literal_type(node):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if isinstance(node, ast.expr):
            for changed in _variants(node):
                self._add(node, changed)
        for name, value in ast.iter_fields(node):
            if name != "annotation" and not (name == "value" and getattr(node, "attr", "") == "join"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self._visit(child)

    def _add(self, node: ast.expr | ast.stmt, changed: ast.AST, *, statement: bool = False) -> None:
        after = ast.unparse(ast.fix_missing_locations(changed))
        span = (node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0)
        bare = statement or isinstance(node, ast.Name | ast.Attribute | ast.Constant)
        self.found.append(
            Mutant(
                node.lineno,
                type(node).__name__,
                ast.unparse(node),
                after if bare else f"({after})",
                span,
                (min(self.statement[0], node.lineno), max(self.statement[1], node.end_lineno or 0)),
                self.functions > 0,
            )
        )


def _variants(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(left, op, right) if type(op) in BINARY:
            yield ast.BinOp(left, BINARY[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                for other in COMPARISON[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.Constant(value) if isinstance(value, bool):
            yield ast.Constant(not value)
        case ast.Constant(value) if isinstance(value, int | float):
            yield ast.Constant(value + 1)
        case ast.Constant(value) if isinstance(value, str) and " " not in value:
            yield ast.Constant(f"XX{value}XX")
        case ast.Name(name) if name in PAIRS:
            yield ast.Name(PAIRS[name])
        case ast.Attribute(value, name) if name in PAIRS:
            yield ast.Attribute(value, PAIRS[name])


def _is_text(node: ast.stmt) -> bool:
    """A docstring or another expression that is only a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_declaration(node: ast.Assign | ast.AnnAssign) -> bool:
    """``__all__``, a type alias, or a number in capitals; not a table of names and functions."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id.lstrip("_") for target in targets if isinstance(target, ast.Name)]
    text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    number = not text and not isinstance(node.value, ast.Dict)
    return any(name == "all__" or (name[:1].isupper() and (number or not name.isupper())) for name in names)


def _is_message(node: ast.AST) -> bool:
    """A call that makes or sends a text to the user."""
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    if isinstance(function, ast.Attribute):
        return getattr(function.value, "id", "") in ("logger", "warnings")
    return getattr(function, "id", "").endswith(("Error", "Warning"))


def _is_literal_type(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal"
