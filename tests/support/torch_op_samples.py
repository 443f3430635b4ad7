"""torch's own operator samples against imports of them: PYTHONPATH=tests python -m support.torch_op_samples

`op_db` is the table by which torch tests its operators: what each computes, and samples of its arguments. A sample is
imported as the module f(x) = op(x, *args) and must come out equal, or be refused with an EBPError. It runs in a process
of its own: the table takes seconds to import and changes settings of torch.

    --per-op N      how many samples of an operator, drawn by --seed where there are more
    --part I/N      every N-th operator, from the I-th on
    --ops a,b       these operators only
    --known N       the operators of support/torch_ops.txt, all of which have an equal sample, and N others by --seed
    --out FILE      the results as JSON: [operator, shape of x, outcome, reason]
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ebp_cuda import from_torch
from ebp_cuda.errors import EBPError
from support import paths

OUTCOMES = ("equal", "refused", "wrong", "crash")
KINDS = (
    *("nn.functional.adaptive_avg_pool2d", "nn.functional.adaptive_avg_pool3d", "squeeze", "nn.functional.batch_norm"),
    *("maximum", "max.binary", "max.reduction_with_dim"),
)
"""What once was wrong, crashed, or was refused though ordinary (the others of these: test_torch_refusals.py)."""

UNWRITTEN = ("empty", "resize")
"""In the names of operators that give memory as it was."""


class Wrapped(nn.Module):
    """f(x) = op(x, *args, **kwargs)."""

    def __init__(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.op, self.args, self.kwargs = op, args, kwargs

    def forward(self, x: torch.Tensor) -> Any:
        return self.op(x, *self.args, **self.kwargs)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors of nested tuples, lists and dicts, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def outcome(module: nn.Module, x: torch.Tensor) -> tuple[str, str] | None:
    """Outcome and reason for one sample; None where the operator itself does not run, or gives no tensor.

    A network that takes any batch is asked with another batch as well, and with other numbers.
    """
    try:
        right = tensors_in(module(x.clone()))
        repeated = [
            torch.allclose(a, b, equal_nan=True) for a, b in zip(right, tensors_in(module(x.clone())), strict=True)
        ]
    except Exception:
        return None
    if not all(repeated) or not right:
        return None
    try:
        net = from_torch(module, x)
        if net.graph.weights is None or len(net.graph.outputs) != len(right):
            return "wrong", f"{len(net.graph.outputs)} outputs, wanted {len(right)}"
        problem = difference(list(net.forward(x).values()), right)
        if not problem and next(iter(net.graph.inputs.values()))[0] is None:
            problem = on_another_batch(net, module, x)
    except EBPError as error:
        return "refused", str(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}"
    return ("wrong", problem) if problem else ("equal", "")


def on_another_batch(net: Any, module: nn.Module, x: torch.Tensor) -> str:
    """What is different with three images of other numbers, if the operator takes them."""
    order = torch.arange(3) % x.shape[0]
    other = x[order].flip(-1).contiguous()
    try:
        right = tensors_in(module(other.clone()))
    except Exception:
        return ""
    return difference(list(net.forward(other).values()), right)


def difference(got: list[torch.Tensor], right: list[torch.Tensor]) -> str:
    """The first difference in shape, dtype or numbers; "" where there is none."""
    for a, b in zip(got, right, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{a.dtype} {list(a.shape)}, wanted {b.dtype} {list(b.shape)}"
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            return f"off by {float((a - b).abs().max()):.2g}"
    return ""


def samples(op: Any, count: int, seed: int) -> Iterator[Any]:
    """Up to `count` samples of an operator whose input is float32 with 2 to 5 axes: the first, and others drawn."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        every = list(op.sample_inputs("cpu", torch.float32))
    except Exception:  # an operator that this build of torch lacks
        return
    fitting = [
        sample
        for sample in every
        if isinstance(sample.input, torch.Tensor)
        and sample.input.dtype == torch.float32
        and sample.input.layout is torch.strided
        and 2 <= sample.input.dim() <= 5
        and sample.input.numel()
    ]
    yield from fitting[:1]
    yield from random.Random(seed).sample(fitting[1:], min(count - 1, len(fitting) - 1)) if len(fitting) > 1 else ()


def operators() -> dict[str, Any]:
    """torch's table by name and variant; operators that give other numbers at every call drop out in `outcome`."""
    from torch.testing._internal.common_methods_invocations import op_db

    fitting = [op for op in op_db if torch.float32 in op.dtypes and not any(word in op.name for word in UNWRITTEN)]
    return {".".join(filter(None, (op.name, op.variant_test_name))): op for op in fitting}


def known(others: int, seed: int) -> list[str]:
    """Operators with an equal sample, those of KINDS, and some others."""
    names = list(dict.fromkeys([*(paths.TESTS / "support" / "torch_ops.txt").read_text().split(), *KINDS]))
    rest = sorted(operators().keys() - set(names))
    return names + random.Random(seed).sample(rest, others)


def run(ops: dict[str, Any], per_op: int, seed: int) -> list[list[Any]]:
    """[operator, shape of x, outcome, reason] of every sample."""
    results = []
    for name, op in ops.items():
        for sample in samples(op, per_op, seed):
            x = sample.input.detach().clone()
            result = outcome(Wrapped(op.op, sample.args, sample.kwargs).eval(), x)
            if result is not None:
                results.append([name, list(x.shape), *result])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-op", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--ops", default="")
    parser.add_argument("--known", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ops = operators()
    names = options.ops.split(",") if options.ops else list(ops)
    names = known(options.known, options.seed) if options.known is not None else names
    first, count = map(int, options.part.split("/"))
    results = run({name: ops[name] for name in names[first::count]}, options.per_op, options.seed)
    if options.out is not None:
        options.out.write_text(json.dumps(results))
    print(Counter(result[2] for result in results))
    bad = [result for result in results if result[2] in ("wrong", "crash")]
    for name, shape, kind, reason in bad:
        print(f"{kind}: {name} {shape}: {reason.splitlines()[0]}")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
