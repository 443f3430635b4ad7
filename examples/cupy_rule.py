"""A rule of your own as a CUDA kernel, compiled by CuPy from the package's formulas, in the place of a layer's rule.

The rule: ReLU lets through relevance in proportion to how sure it was, x / (x + 1). Without CuPy or a GPU the example
says so and runs the same rule in torch.
"""

from __future__ import annotations

import torch
from torch import nn

import ebp_cuda
from ebp_cuda import Relevance, UnsupportedError, jit

FORMULA = "below = p * ebp::share(x, x + T(1))"  # ebp::share(p, z) is p / z, and 0 where z is 0

try:
    if not torch.cuda.is_available():
        raise UnsupportedError("torch finds no GPU")
    kernel = jit.elementwise("T p, T x", "T below", FORMULA, name="sure_relu")
    device = "cuda"
except UnsupportedError as reason:
    print(f"no kernel: {reason}; the same in torch")
    device = "cpu"

    def kernel(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return p * ebp_cuda.ops.divide_or_zero(x, x + 1)


@ebp_cuda.register_rule("relu", "pass", needs="x")
def sure_relu(step, above):
    p, x = above[0].p(), step.inputs[0].clamp(min=0)
    columns = p.shape[0] // x.shape[0]  # p has a row per image and class, x one per image
    return [Relevance(kernel(p, x.repeat_interleave(columns, 0)))]


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 5))
x = torch.rand(2, 3, 16, 16)
net = ebp_cuda.from_torch(model.eval(), x)
maps = ebp_cuda.ExcitationBackprop(net, layer="1", rules="caffe", device=device).attribute(x, "all")
print(f"maps {list(maps.shape)} on {maps.device}; what is left of each: {maps.sum((2, 3))[0].tolist()}")
