"""Archives of torch.export (.pt2) from strangers: read so that nothing in them can run.

torch.export.load unpickles whatever an archive says is a pickle, evaluates its expressions of sizes as Python, and
looks its operators up by name anywhere in torch. So no archive is handed to torch as it is: every member is checked,
what is pickled is read with `weights_only=True` and pickled anew, and torch reads a copy of the members that passed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
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
        *("Symbol", "Dummy", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "Mod", "max"),
        *("min", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing"),
        *("Identity", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "PowByNatural", "FloatPow"),
        *("Where", "Eq", "Ne", "Gt", "Ge", "Lt", "Le", "And", "Or", "Not", "Equality", "Unequality", "GreaterThan"),
        *("LessThan", "StrictGreaterThan", "StrictLessThan", "OpaqueUnaryFn_sqrt", "Piecewise", "ExprCondPair"),
    )
)
"""What an expression of sizes may call."""
_PLAIN = frozenset(
    ("archive_format", "archive_version", "byteorder", "version", ".data/version", ".data/serialization_id")
)
"""Members that are short texts."""
_DATA = ("data/weights/", "data/constants/")
_EXPANSION, _SMALL = 16, 1 << 20
"""How many times its own size a zip file may unpack to, and what any may: torch packs nothing."""
_FORBIDDEN = frozenset(("torch.ops.aten.from_file", "torch.ops.aten.from_file.default"))
"""Operators of torch that open files."""


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
        _check_expansion(path, str(path))
        copy = io.BytesIO()
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as checked:
            for name, content in _checked_members(archive, path):
                checked.writestr(name, content)
        copy.seek(0)
        with _silenced():
            return torch.export.load(copy)
    except (ModelError, UnsupportedError):
        raise
    except Exception as error:  # zipfile, json and torch raise a dozen kinds
        raise ModelError(f"{path}: cannot be read as an archive of torch.export: {first_line(error)}") from error


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """torch logs the whole way to an error; ours says it in one line."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_expansion(file: Path | io.BytesIO, where: str) -> None:
    """Raises ModelError for a zip file whose members are far larger than itself."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    packed = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
    if unpacked > max(_SMALL, _EXPANSION * packed):
        raise ModelError(
            f"{where}: its {packed:,} bytes unpack to {unpacked:,}; the most is {_EXPANSION} times as many"
        )


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
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        _check_expansion(file, where)
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
        if key == "target" and (not _OPERATORS.fullmatch(text) or text in _FORBIDDEN):
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


_OPERATIONS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd),
    *(ast.And, ast.Or, ast.Not, ast.cmpop),
)
_STRUCTURE = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load, ast.keyword)
_POWERS = frozenset(("Pow", "PowByNatural", "FloatPow"))
_LARGEST_EXPONENT = 8


def _computes_with_sizes(text: str) -> bool:
    """Whether an expression is made of numbers, symbols, arithmetic and the functions that torch writes, and is soon
    computed: powers are small, and not of powers."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = {id(node) for part in ast.walk(tree) for node in _places_of_names(part)}
    return all(_is_harmless(node, id(node) in names) for node in ast.walk(tree))


def _places_of_names(node: ast.AST) -> list[ast.expr]:
    """Where a text may stand: the name of a symbol, and that of an input."""
    if isinstance(node, ast.Subscript):
        return [node.slice]
    of_symbol = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Symbol", "Dummy")
    return node.args if of_symbol and isinstance(node, ast.Call) else []


def _is_harmless(node: ast.AST, is_name: bool) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _is_small_power(node.left, node.right)
    if isinstance(node, (*_STRUCTURE, *_OPERATIONS)):
        return True
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) or (
            is_name and isinstance(node.value, str) and node.value.isidentifier()
        )
    if isinstance(node, ast.Name):  # a function, a symbol of torch's, infinity, or the inputs
        return (
            node.id in _FUNCTIONS or node.id in ("L", "oo", "int_oo") or bool(re.fullmatch(r"(s|u|zf|zuf)\d+", node.id))
        )
    if isinstance(node, ast.Call):  # Add(...), or .size() of an input
        if isinstance(node.func, ast.Name) and node.func.id in _POWERS:
            return len(node.args) == 2 and not node.keywords and _is_small_power(*node.args)
        return isinstance(node.func, (ast.Name, ast.Attribute))
    if isinstance(node, ast.Attribute):
        return node.attr == "size" and isinstance(node.value, ast.Subscript)
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)


def _is_small_power(base: ast.expr, exponent: ast.expr) -> bool:
    """A power takes time and memory by its exponent, and a power of powers by the product of them."""
    if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
        exponent = exponent.operand
    if isinstance(exponent, ast.Call) and isinstance(exponent.func, ast.Name) and exponent.func.id == "Integer":
        (exponent,) = exponent.args or (exponent,)
    return (
        isinstance(exponent, ast.Constant)
        and (isinstance(exponent.value, (int, float)) and abs(exponent.value) <= _LARGEST_EXPONENT)
        and not any(
            isinstance(node, ast.Pow) or (isinstance(node, ast.Name) and node.id in _POWERS) for node in ast.walk(base)
        )
    )
