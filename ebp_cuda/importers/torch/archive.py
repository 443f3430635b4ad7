"""Archives of torch.export (.pt2) from strangers: read so that nothing in them can run.

torch.export.load unpickles whatever an archive says is a pickle, evaluates its expressions of sizes as Python, and
looks its operators up by name anywhere in torch. So no archive is handed to torch as it is: every member is checked,
what is pickled is read with `weights_only=True` and pickled anew, and torch reads a copy of the members that passed.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ...errors import ModelError, UnsupportedError
from .messages import first_line

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|torch\.sym_(not|float|int|max|min|sum|ite|sqrt)|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|pos)|"
    r"math\.(ceil|floor|trunc|sqrt)"
)
_FUNCTIONS = frozenset(
    (
        *(
            "Symbol",
            "Dummy",
            "Integer",
            "Float",
            "Rational",
            "Add",
            "Mul",
            "Pow",
            "Max",
            "Min",
            "Abs",
            "Mod",
            "max",
            "min",
        ),
        *("PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing", "Identity"),
        *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "PowByNatural", "FloatPow", "Where"),
        *("Eq", "Ne", "Gt", "Ge", "Lt", "Le", "And", "Or", "Not", "Equality", "Unequality", "GreaterThan", "LessThan"),
        *("StrictGreaterThan", "StrictLessThan", "OpaqueUnaryFn_sqrt", "Piecewise", "ExprCondPair"),
    )
)
"""What an expression of sizes may call."""
_PLAIN = frozenset(
    ("archive_format", "archive_version", "byteorder", "version", ".data/version", ".data/serialization_id")
)
"""Members that are short texts."""
_DATA = ("data/weights/", "data/constants/")


def load_archive(path: str | Path, *, trust: bool = False) -> ExportedProgram:
    """The exported program of a .pt2 file.

    Args:
        path: a file of torch.export.save.
        trust: hand the file to torch as it is. Whoever wrote it can then run code here.

    Raises:
        ModelError: where the file is missing, damaged or no such archive.
        UnsupportedError: names the member that holds more than tensors, operators and sizes.
    """
    path = Path(path)
    try:
        if trust:
            return torch.export.load(path)
        copy = io.BytesIO()
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as checked:
            for name, content in _checked_members(archive, path):
                checked.writestr(name, content)
        copy.seek(0)
        return torch.export.load(copy)
    except (ModelError, UnsupportedError):
        raise
    except Exception as error:  # zipfile, json and torch raise a dozen kinds
        raise ModelError(f"{path}: cannot be read as an archive of torch.export: {first_line(error)}") from error


def _checked_members(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every member that torch is to see; pickles are made anew of what they hold."""
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise ModelError(f"{path}: two members have one name")
    root = names[0].split("/")[0] + "/" if names else ""
    if not all(name.startswith(root) for name in names):
        raise ModelError(f"{path}: members lie in several folders")
    members = {name.removeprefix(root): name for name in names}
    pickled = set(_pickled(archive, members, path))
    for name, full in members.items():
        where, content = f"{path}: member '{name}'", archive.read(full)
        if name in _PLAIN or name.endswith("_config.json"):
            yield full, content
        elif name.startswith("models/") and name.endswith(".json"):
            yield full, _checked_program(content, where)
        elif name in pickled or (name.startswith((*_DATA, "data/sample_inputs/")) and name.endswith(".pt")):
            yield full, _pickled_anew(content, where)
        elif name.startswith(_DATA):
            yield full, content  # the bytes of one tensor
        elif not name.startswith("extra/"):  # texts of the user's, of which nothing is needed
            raise UnsupportedError(f"{where} is nothing that a program of tensors needs; {_CURE}")


_CURE = "trust=True reads the file all the same, and lets it run code"


def _pickled(archive: zipfile.ZipFile, members: dict[str, str], path: Path) -> Iterator[str]:
    """Members that the archive's own lists call pickles. Raises for objects other than tensors."""
    for folder in _DATA:
        for name, full in members.items():
            if name.startswith(folder) and name.endswith("_config.json"):
                for entry in json.loads(archive.read(full))["config"].values():
                    file = str(entry["path_name"])
                    if not re.fullmatch(r"(weight|tensor)_\d+", file):
                        raise UnsupportedError(f"{path}: member '{folder}{file}' is an object and no tensor; {_CURE}")
                    if entry["use_pickle"]:
                        yield folder + file


def _pickled_anew(content: bytes, where: str) -> bytes:
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch.load raises
        raise UnsupportedError(
            f"{where} holds more than tensors, so that reading it may run code: {first_line(error)}; {_CURE}"
        ) from error
    again = io.BytesIO()
    torch.save(tensors, again)
    return again.getvalue()


def _checked_program(content: bytes, where: str) -> bytes:
    """The program's JSON, whose operators are torch's and whose expressions only compute with sizes."""
    program = json.loads(content)
    for key, text in _texts(program):
        if key == "target" and not _OPERATORS.fullmatch(text):
            raise UnsupportedError(f"{where} calls '{text}', wanted an operator of torch; {_CURE}")
        if key in ("expr_str", "guards_code") and not _computes_with_sizes(text):
            raise UnsupportedError(f"{where} has '{text[:80]}' for an expression of sizes; {_CURE}")
    return content


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every string in nested JSON; the entries of a list have the list's key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, key)
    elif isinstance(value, str):
        yield key, value


_ARITHMETIC = (
    *(
        ast.Expression,
        ast.BinOp,
        ast.UnaryOp,
        ast.BoolOp,
        ast.Compare,
        ast.operator,
        ast.unaryop,
        ast.boolop,
        ast.cmpop,
    ),
    *(ast.Load, ast.keyword),
)


def _computes_with_sizes(text: str) -> bool:
    """Whether an expression is made of numbers, symbols, arithmetic and the functions that torch writes."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(_is_harmless(node) for node in ast.walk(tree))


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, _ARITHMETIC):
        return True
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) or (isinstance(node.value, str) and node.value.isidentifier())
    if isinstance(node, ast.Name):  # a function, a symbol of torch's, infinity, or the inputs
        return (
            node.id in _FUNCTIONS or node.id in ("L", "oo", "int_oo") or bool(re.fullmatch(r"(s|u|zf|zuf)\d+", node.id))
        )
    if isinstance(node, ast.Call):  # Add(...), or .size() of an input
        return isinstance(node.func, (ast.Name, ast.Attribute))
    if isinstance(node, ast.Attribute):
        return node.attr == "size" and isinstance(node.value, ast.Subscript)
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
