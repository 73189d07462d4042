"""Names in text become links, and a name that does not exist fails the build.

- In pages, inline code that reads ``tw.tl.fit`` or ``tw.tl.fit(adata, "day")`` links to its API page.
- In docstrings a name in single backticks is an object of the package, by any end of its full name, or a parameter of
  the thing described.
- Docstrings of modules are specifications in plain text; `plain_text` makes valid reStructuredText of them.
- What says nothing is left out: a base class that is ``object``, the fields of a named tuple by number.
- *Returns* and *Attributes* are laid out as this package writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import NumpyDocstring
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"tw\.((?:tl|pp|pl|get|datasets|metrics|errors|core|training)\.[\w.]*\w)(?:\(.*\))?", flags=re.S)
TABLE = "\0"  # before a line of a table that is laid out


class LinkNames(SphinxTransform):
    """Wrap inline code that names a public object in a reference to it."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(literal.astext())
            if match is None or isinstance(literal.parent, nodes.reference | addnodes.pending_xref):
                continue
            target = f"thalweg.{match[1]}"
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refdoc=self.env.docname, refwarn=True
            )
            literal.replace_self(link)
            link += literal


class LeaveOutObject(SphinxTransform):
    """Take out the line *Bases: object*."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for content in self.document.findall(addnodes.desc_content):
            for line in [n for n in content.children if isinstance(n, nodes.paragraph)]:
                if line.astext() == "Bases: object":
                    content.remove(line)


def find_name(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element) -> Any:
    """Objects named by the end of their full name; without a dot, what is not found is a parameter."""
    if node.get("reftype") != "obj" or node.get("refdomain") != "py":
        return None
    target, objects = node["reftarget"].partition("=")[0], env.get_domain("py").objects
    if "._" in target and not target.endswith("__"):  # a private module
        return content
    for end in (target, target.rpartition(".")[0]):  # a member without a page: its class
        found = [name for name in objects if end and name.endswith(f".{end}")]
        if found:
            name = min(found, key=len)
            entry = objects[name]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)
    return None if "." in target else content


def returns_as_prose(self: NumpyDocstring, section: str) -> list[str]:
    """*Returns* is prose here, with a definition list of fields; napoleon would read each line as a type.

    A type that stands alone on the first line is left out, as the signature has it.
    """
    lines = self._dedent(self._consume_to_next_section())
    if len(lines) > 1 and lines[0].isidentifier() and lines[1].startswith(" "):
        lines = self._dedent(lines[1:])
    return self._format_block(":returns: ", lines)


def attributes_as_list(self: NumpyDocstring, section: str) -> list[str]:
    """*Attributes* may share a line, as parameters may."""
    return self._format_fields("Attributes", self._consume_fields())


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Module docstrings: formulas become literal blocks, tables are laid out, ``|`` and ``*`` are characters."""
    if what != "module":
        return
    out: list[str] = []
    literal = False
    for line in _tables_as_lists(lines):
        if line.startswith(TABLE):  # laid out already
            out.append(line.removeprefix(TABLE))
            literal = False
            continue
        # below a list item an indented line continues it
        formula = line.startswith("    ")
        if formula and not literal and not (out and out[-1].strip()):
            out += ["::", ""]
            literal = True
        if literal and line.strip() and not formula:
            literal = False
        out.append(f"    {line}" if literal else _escape(line))
    lines[:] = out


def _tables_as_lists(lines: list[str]) -> Iterator[str]:
    """Lines with tables of bars and dashes as the directive that makes a table of lists."""
    rows: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if rows or following.startswith("|--"):
            rows.append(line)
            if following.startswith("|"):
                continue
            yield from (TABLE + text for text in (".. list-table::", "   :header-rows: 1", ""))
            for row in (r for r in rows if not r.startswith("|--")):
                cells = [_escape(cell.strip()) for cell in row.strip("|").split(" | ")]
                yield from (f"{TABLE}   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(cells))
            rows = []
        else:
            yield line


def _escape(line: str) -> str:
    parts = re.split(r"(`+[^`]*`+|(?<![\w*])\*\w+\*(?![\w*]))", line)
    return "".join(p if i % 2 else re.sub(r"([|*]|(?<=\w)_(?=\W|$))", r"\\\1", p) for i, p in enumerate(parts))


def skip_numbers(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple that have no text but their number."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    NumpyDocstring._parse_returns_section = returns_as_prose  # type: ignore[method-assign]
    NumpyDocstring._parse_attributes_section = attributes_as_list  # type: ignore[method-assign]
    app.add_transform(LinkNames)
    app.add_transform(LeaveOutObject)
    app.connect("autodoc-process-docstring", plain_text)
    app.connect("autodoc-skip-member", skip_numbers)
    app.connect("missing-reference", find_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
