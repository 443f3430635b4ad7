"""Archives of torch.export from strangers: tensors, operators and sizes, or a refusal; nothing in them ever runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from memory import growth
from torch import nn
from torch.export import Dim

from ebp_cuda.errors import EBPError, ModelError, UnsupportedError
from ebp_cuda.importers.torch.archive import load_archive


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.lookup = torch.rand(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.max_pool2d(self.norm(self.conv(x)) + self.lookup, 2, ceil_mode=True)
        return F.interpolate(h, size=x.shape[2:])


X = torch.rand(2, 3, 8, 10)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "small.pt2"
    sizes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    module = Small().eval()
    torch.export.save(torch.export.export(module, (X,), dynamic_shapes=sizes), path, extra_files={"note.txt": "hello"})
    return path


def test_what_torch_saves_is_read(saved: Path) -> None:
    program, right = load_archive(saved), torch.export.load(saved)
    torch.testing.assert_close(program.module()(X), right.module()(X))
    torch.testing.assert_close(load_archive(saved, trust=True).module()(X), right.module()(X))


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "ran")


def changed(source: Path, target: Path, edit: Callable[[str, bytes], bytes], more: dict[str, bytes]) -> Path:
    """A copy of an archive with its members edited and others added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            new.writestr(name, edit(name.removeprefix(root + "/"), old.read(name)))
        for name, content in more.items():
            new.writestr(f"{root}/{name}", content)
    return target


def _saved_by_torch(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _edited_program(edit: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        program = json.loads(content)
        edit(program)
        return json.dumps(program).encode()

    return apply


def _plants(mark: Path) -> dict[str, tuple[Callable[[str, bytes], bytes], dict[str, bytes]]]:
    evil = Planted(mark)
    code = f"__import__('pathlib').Path('{mark}').write_text('ran')"

    def keep(name: str, content: bytes) -> bytes:
        return content

    def in_place_of(member: str, new: bytes) -> Callable[[str, bytes], bytes]:
        return lambda name, content: new if name == member else content

    def pickled_weight(name: str, content: bytes) -> bytes:
        if name == "data/weights/model_weights_config.json":
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return pickle.dumps(evil, protocol=0) if name == "data/weights/weight_0" else content

    def object_among_constants(name: str, content: bytes) -> bytes:
        if name != "data/constants/model_constants_config.json":
            return content
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps({"config": {"evil": entry}}).encode()

    def target(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    def size(expression: str) -> Callable[[str, bytes], bytes]:
        def edit(program: dict[str, Any]) -> None:
            values = program["graph_module"]["graph"]["sym_int_values"]
            next(value for value in values.values() if "as_expr" in value)["as_expr"]["expr_str"] = expression

        return _edited_program(edit)

    def guard(expression: str) -> Callable[[str, bytes], bytes]:
        return _edited_program(lambda program: program.update(guards_code=[expression]))

    def reads_a_file(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    return {
        "sample_inputs": (in_place_of("data/sample_inputs/model.pt", _saved_by_torch((evil,))), {}),
        "sample_inputs_plain_pickle": (in_place_of("data/sample_inputs/model.pt", pickle.dumps(evil)), {}),
        "weight_said_to_be_pickled": (pickled_weight, {}),
        "opaque_object": (object_among_constants, {"data/constants/opaque_obj_0": pickle.dumps(evil)}),
        "legacy_weights": (keep, {"data/weights/model.pt": _saved_by_torch({"a": evil})}),
        "legacy_constants": (keep, {"data/constants/model.pt": pickle.dumps(evil)}),
        "compiled_code": (keep, {"data/aotinductor/model/a.so": b"\x7fELF"}),
        "operator": (_edited_program(target), {}),
        "operator_that_opens_files": (_edited_program(reads_a_file), {}),
        "expression_of_sizes": (size(code), {}),
        "power_without_end": (size("9**9**9"), {}),
        "power_by_name": (size("Pow(9, Pow(9, 9))"), {}),
        "power_of_powers": (size("((9**8)**8)**8"), {}),
        "shift_without_end": (size("1 << 99999999999"), {}),
        "text_without_end": (size("'a' * 999999999999"), {}),
        "nested_without_end": (size("(" * 5000 + "s0" + ")" * 5000), {}),
        "guard": (guard(code), {}),
        "guard_that_assigns": (guard("(s0 := 1) > 0"), {}),
        "guard_of_an_attribute": (guard("L['x'].size.__class__ == 3"), {}),
        "guard_of_a_large_power": (guard("L['x'].size()[2] < 9**9**9"), {}),
        "old_layout": (keep, {"serialized_state_dict.pt": pickle.dumps(evil)}),
    }


@pytest.mark.parametrize("plant", list(_plants(Path())))
def test_a_planted_archive_is_refused_and_does_not_run(saved: Path, tmp_path: Path, plant: str) -> None:
    mark = tmp_path / "mark"
    edit, more = _plants(mark)[plant]
    with pytest.raises(UnsupportedError, match="trust=True"):
        load_archive(changed(saved, tmp_path / "planted.pt2", edit, more))
    assert not mark.exists()


@pytest.mark.parametrize(
    "expression",
    ["s0**2", "Pow(s0, Integer(2))", "(s0 + 1)**(-1)*FloorDiv(s1, 2)", "Symbol('s77', positive=True, integer=True)"],
)
def test_sizes_as_torch_writes_them_are_read(saved: Path, tmp_path: Path, expression: str) -> None:
    def edit(program: dict[str, Any]) -> None:
        program["guards_code"] = [f"{expression} != L['x'].size()[0]"]

    path = changed(saved, tmp_path / "a.pt2", _edited_program(edit), {})
    assert len(load_archive(path).graph.nodes) == len(torch.export.load(saved).graph.nodes)


@pytest.mark.parametrize("member", ["data/weights/weight_0", "extra/note.txt", "data/sample_inputs/model.pt"])
def test_what_unpacks_to_far_more_than_it_is_is_refused_unread(saved: Path, tmp_path: Path, member: str) -> None:
    content = bytes(200_000_000)
    if member.endswith(".pt"):  # a zip file in the zip file
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data/0", content)
        content = inner.getvalue()
    path = changed(saved, tmp_path / "bomb.pt2", lambda name, old: content if name == member else old, {})
    packed = tmp_path / "packed.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))

    def refused() -> None:
        with pytest.raises(ModelError, match="unpack to 200,"):
            load_archive(packed)

    assert growth(refused) < 5e7


def test_a_refusal_of_torchs_is_one_line(saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = changed(saved, tmp_path / "a.pt2", lambda name, old: b"{}" if name.startswith("models/") else old, {})
    with pytest.raises(ModelError, match=r"a\.pt2: cannot be read"):
        load_archive(path)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing more", b"<html>"])
def test_what_is_no_archive_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"file\.pt2"):
        load_archive(path)
    with pytest.raises(EBPError):
        load_archive(tmp_path / "missing.pt2")
