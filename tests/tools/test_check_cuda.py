"""What tools/check_cuda.py counts and how budgets are held; what it reads of ptxas is tested with the build."""

from __future__ import annotations

import json

import check_cuda
import kernel_budgets
import sass

LOOP = """
.L_x_0:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
{inner}
        /*{end:04x}*/              @!P0 BRA `(.L_x_1) ;
        /*{behind:04x}*/                   EXIT ;
.L_x_2:
        /*{last:04x}*/                   BRA `(.L_x_2);
"""


def code(ops: list[str]) -> sass.Code:
    """A kernel whose loop holds the given instructions."""
    inner = "\n".join(f"        /*{16 * i:04x}*/              @P1  {op} ;" for i, op in enumerate(ops, 1))
    end = 16 * (len(ops) + 1)
    return sass.read_kernel(LOOP.format(inner=inner, end=end, behind=end + 16, last=end + 32))


def test_a_step_is_the_loop_that_multiplies() -> None:
    ops = ["FFMA R1, R2, R3, R1"] * 20 + ["LDS.128 R4, [R5]", "STS [R5], R4", "BAR.SYNC 0x0", "IMAD.MOV R1, R2, R3"]
    counted = code(ops)
    assert counted.size == 16 * (1 + len(ops) + 3)
    other = 2  # the IMAD and the branch
    parts = {"multiply": 20, "shared load": 1, "shared store": 1, "barrier": 1, "other": other}
    assert counted.step == {"all": len(ops) + 1, **parts}
    assert code(["IADD3 R1, R2, R3, RZ"] * 30).step == {}


def test_what_is_over_budget_and_what_is_below() -> None:
    budgets = {"a": {"registers": 80.0, "banks": 2.0}, "gone": {"registers": 1.0}}
    assert kernel_budgets.exceeded({"a": {"registers": 80.0, "banks": 2.0}}, budgets) == []
    over = kernel_budgets.exceeded({"a": {"registers": 81.0, "banks": 1.0}, "new": {"registers": 3.0}}, budgets)
    assert over == ["a: registers is 81 of 80", "new: registers is 3, and has no budget"]
    less = kernel_budgets.slack({"a": {"registers": 80.0, "banks": 1.0}}, budgets)
    assert less == ["gone: is gone", "a: banks is 1 of 2"]


def test_budgets_are_held_against_their_own_compiler_only(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "budgets.json"
    kernel_budgets.write("13.0.88", {"a": {"registers": 80.0}}, file)
    assert json.loads(file.read_text()) == {"nvcc": "13.0.88", "kernels": {"a": {"registers": 80.0}}}
    monkeypatch.setattr(kernel_budgets, "load", lambda: ("13.0.88", {"a": {"registers": 80.0}}))
    assert check_cuda.compare({"a": {"registers": 99.0}}, "13.0.88") == ["a: registers is 99 of 80"]
    assert check_cuda.compare({"a": {"registers": 99.0}}, "12.8.1") == []
    assert "not held against it" in capsys.readouterr().out


def test_a_stack_counts_as_a_spill(monkeypatch) -> None:
    monkeypatch.setattr(check_cuda, "readable", lambda names: {name: name for name in names})
    fine = check_cuda.Use("gate", "90", registers=80, shared=0, stack=0, spills=0)
    stack = check_cuda.Use("lrn", "75", registers=20, shared=0, stack=8, spills=0)
    assert check_cuda.spilling([fine, stack]) == ["lrn on sm_75: spills 0 bytes, a stack of 8"]
    assert check_cuda.register_counts([fine, stack]) == {"gate": {"registers": 80.0}}
