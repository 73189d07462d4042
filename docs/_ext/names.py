"""Names in text become links, and a name that does not exist fails the build.

- In pages, inline code that reads ``tw.tl.fit`` or ``tw.tl.fit(adata, "day")`` links to its API page.
- In docstrings a name in single backticks is an object of the package, by any end of its full name, or a parameter of
  the thing described.
- Docstrings of modules are specifications in plain text; `plain_text` makes valid reStructuredText of them.
- *Returns* and *Attributes* are laid out as this package writes them.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import NumpyDocstring
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"tw\.((?:tl|pp|pl|get|datasets|metrics|errors|core|training)\.[\w.]*\w)(?:\(.*\))?", flags=re.S)


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
    """*Returns* is prose here, with a definition list of fields; napoleon would read each line as a type."""
    return self._format_block(":returns: ", self._dedent(self._consume_to_next_section()))


def attributes_as_list(self: NumpyDocstring, section: str) -> list[str]:
    """*Attributes* may share a line, as parameters may."""
    return self._format_fields("Attributes", self._consume_fields())


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Module docstrings: indented formulas and tables become literal blocks, and ``|`` and ``*`` are characters."""
    if what != "module":
        return
    out: list[str] = []
    literal = False
    for line in lines:
        # below a list item an indented line continues it
        formula = line.startswith("    ") or line.startswith("|")
        if formula and not literal and not (out and out[-1].strip()):
            out += ["::", ""]
            literal = True
        if literal and line.strip() and not formula:
            literal = False
        out.append(f"    {line}" if literal else _escape(line))
    lines[:] = out


def _escape(line: str) -> str:
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(p if p.startswith("`") else re.sub(r"([|*]|(?<=\w)_(?=\W|$))", r"\\\1", p) for p in parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    NumpyDocstring._parse_returns_section = returns_as_prose  # type: ignore[method-assign]
    NumpyDocstring._parse_attributes_section = attributes_as_list  # type: ignore[method-assign]
    app.add_transform(LinkNames)
    app.connect("autodoc-process-docstring", plain_text)
    app.connect("missing-reference", find_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
