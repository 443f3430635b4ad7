"""Edits of single places of a Python 3 text: names and imports of today, divisions in indices as integers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from .. import pycaffe
from .names import GONE, INTEGER_ARGUMENTS, INTEGER_METHODS, LEFT, RENAMED, RENAMED_KEYWORDS


@dataclass(frozen=True)
class Place:
    """One thing that was changed, or left: the line, and what it is about."""

    line: int
    text: str


@dataclass
class Editor:
    """Collects the edits of texts that share their imports: a script, or the cells of a notebook in order."""

    aliases: dict[str, str] = field(default_factory=dict)
    """Name in the text -> full name of what was imported under it."""
    changed: list[Place] = field(default_factory=list)
    left: list[Place] = field(default_factory=list)

    def edited(self, text: str, *, python2: bool) -> str:
        """The text, which Python 3 can read, with its edits. python2: divisions outside of indices are reported."""
        return _Pass(self, text, python2).run()


class _Pass:
    def __init__(self, editor: Editor, text: str, python2: bool) -> None:
        self.editor, self.python2 = editor, python2
        self.lines = text.encode().splitlines(keepends=True)
        self.edits: list[tuple[int, int, str]] = []
        """(first byte, end, new text); they do not overlap."""
        self.imports: dict[str, None] = {}
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def run(self) -> str:
        raw = b"".join(self.lines)
        tree = ast.parse(raw)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._learn(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        self._visit(tree, whole=False)
        for first, end, new in sorted(self.edits, reverse=True):
            raw = raw[:first] + new.encode() + raw[end:]
        head = "".join(f"import {module}\n" for module in self.imports)
        return _behind_docstring(raw.decode(), head) if head else raw.decode()

    # --- places -----------------------------------------------------------------------------------------------------

    def _place(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._place(node.lineno, node.col_offset), self._place(node.end_lineno, node.end_col_offset)

    def _change(self, node: ast.expr | ast.stmt, new: str, text: str) -> None:
        self.edits.append((*self._span(node), new))
        self.editor.changed.append(Place(node.lineno, text))

    def _leave(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.editor.left.append(Place(node.lineno, text))

    # --- imports ----------------------------------------------------------------------------------------------------

    def _learn(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                self.editor.aliases[alias.asname or alias.name] = f"{module}.{alias.name}"
            elif alias.asname:
                self.editor.aliases[alias.asname] = alias.name
            else:
                self.editor.aliases[alias.name.partition(".")[0]] = alias.name.partition(".")[0]

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        lines = [self._import_line(node, alias) for alias in node.names]
        if all(new is None for new, _ in lines):
            return
        kept = [line for new, old in lines if (line := old if new is None else new)] or ["pass"]
        separator = "\n" + " " * node.col_offset
        self._change(node, separator.join(dict.fromkeys(kept)), f"{ast.unparse(node)} -> {'; '.join(kept)}")

    def _import_line(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str | None, str]:
        """(the new statement, None where it stays, "" where it goes; the old one) for one name."""
        known_as = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            old = f"import {alias.name}{known_as}"
            if alias.name == "caffe":
                return f"from ebp_cuda import caffe{known_as}", old
            if alias.name.startswith("caffe."):
                return (f"import ebp_cuda.{alias.name}{known_as}" if known_as else "from ebp_cuda import caffe"), old
            if alias.name in GONE:
                return "" if known_as else f"import {alias.name.rpartition('.')[0]}", old
            new = _renamed(alias.name)
            return (f"import {new}{known_as}" if new and known_as else None), old
        module = node.module or ""
        old = f"from {'.' * node.level}{module} import {alias.name}{known_as}"
        if node.level == 0 and module.partition(".")[0] == "caffe":
            return f"from ebp_cuda.{module} import {alias.name}{known_as}", old
        if f"{module}.{alias.name}" in GONE:
            return "", old
        new = _renamed(f"{module}.{alias.name}") if node.level == 0 else None
        if new is None or "." not in new:
            return None, old
        self.editor.aliases[alias.asname or alias.name] = new
        package, _, name = new.rpartition(".")
        same = name == (alias.asname or alias.name)
        return f"from {package} import {name}{'' if same else f' as {alias.asname or alias.name}'}", old

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _visit(self, node: ast.AST, *, whole: bool) -> None:
        """whole: the value counts something, so that a division in it is one of integers."""
        if isinstance(node, ast.Attribute | ast.Name) and self._name(node):
            return
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            self._division(node, whole)
        for name, child in _children(node):
            self._visit(child, whole=self._counts(node, name, child, whole))
        if isinstance(node, ast.Call):
            self._keywords(node)

    def _counts(self, node: ast.AST, name: str, child: ast.AST, whole: bool) -> bool:
        if isinstance(node, ast.Subscript):
            return name == "slice"
        if isinstance(node, ast.Call):
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            function = self._full_name(node.func)
            return name == "args" and (function in INTEGER_ARGUMENTS or method in INTEGER_METHODS)
        arithmetic = ast.BinOp | ast.UnaryOp | ast.Tuple | ast.List | ast.Slice | ast.IfExp | ast.Starred
        return whole and isinstance(node, arithmetic)

    def _division(self, node: ast.BinOp, whole: bool) -> None:
        if any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in (node.left, node.right)):
            return
        if any(isinstance(n, ast.Call) and self._full_name(n.func) == "float" for n in (node.left, node.right)):
            return
        if whole:
            start, end = self._span(node.left)[1], self._span(node.right)[0]
            between = b"".join(self.lines)[start:end]
            place = start + between.index(b"/")
            self.edits.append((place, place + 1, "//"))
            self.editor.changed.append(Place(node.lineno, f"{ast.unparse(node)}: divided as integers"))
        elif self.python2:
            self._leave(node, f"{ast.unparse(node)}: Python 2 rounds down if both are integers (//)")

    def _full_name(self, node: ast.AST) -> str:
        """The name of an import and its attributes, in full; another name as it is, "" for what is no name."""
        if isinstance(node, ast.Name):
            return self.editor.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            before = self._full_name(node.value)
            return f"{before}.{node.attr}" if before else ""
        return ""

    def _imported(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.editor.aliases

    def _name(self, node: ast.Attribute | ast.Name) -> bool:
        """Deals with a name; True where nothing inside it is left to see."""
        if isinstance(node.ctx, ast.Store) or not self._imported(node):
            return False
        full = self._full_name(node)
        if full in LEFT:
            self._leave(node, f"{full}: {LEFT[full]}")
        package, _, name = full.partition(".")
        if package == "caffe" and name and "." not in name and not hasattr(pycaffe, name):
            self._leave(node, f"caffe.{name} is not there: networks run here, nothing is trained")
        new = _renamed(full)
        if new is None or isinstance(node, ast.Name):
            return False
        self._change(node, self._spelled(new), f"{full} -> {new}")
        return True

    def _spelled(self, full: str) -> str:
        """A full name by the imports that the text has, or by one more."""
        for alias, module in self.editor.aliases.items():
            if full.startswith(f"{module}."):
                return alias + full[len(module) :]
        module = full.rpartition(".")[0]
        if module:
            self.imports[module] = None
            self.editor.aliases[module] = module  # a later text has it as well
        return full

    def _keywords(self, call: ast.Call) -> None:
        names = RENAMED_KEYWORDS.get(self._full_name(call.func).partition(".")[0], {})
        for keyword in call.keywords:
            if keyword.arg in names:
                start = self._place(keyword.lineno, keyword.col_offset)
                new = names[keyword.arg]
                self.edits.append((start, start + len(keyword.arg), new))
                self.editor.changed.append(Place(keyword.lineno, f"{keyword.arg}= -> {new}="))


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield name, item


def _renamed(full: str) -> str | None:
    """The new name of the longest part of `full` that has one, with the rest behind it."""
    parts = full.split(".")
    for count in range(len(parts), 0, -1):
        new = RENAMED.get(".".join(parts[:count]))
        if new is not None:
            result = ".".join([new, *parts[count:]])
            return result if result != full else None
    return None


def _behind_docstring(text: str, head: str) -> str:
    body = ast.parse(text).body
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    documented = isinstance(first, ast.Constant) and isinstance(first.value, str)
    lines = text.splitlines(keepends=True)
    count = (first.end_lineno or 0) if documented and first is not None else 0
    while not documented and count < len(lines) and lines[count].startswith("#"):
        count += 1
    return "".join([*lines[:count], head, *lines[count:]])
