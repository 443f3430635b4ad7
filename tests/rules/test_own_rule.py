"""A rule of one's own for a layer with weights, written with its linear map, against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda.rules import register_rule
from ebp_cuda.rules.relevance import Relevance


@pytest.fixture
def with_epsilon(tables_as_before: None) -> None:
    @register_rule("linear", "share", rule_sets=["caffe"], needs="x")
    def share_with_epsilon(step, above):
        """p_below = x * L+^T (p / (L+ x + 0.01))."""
        x, positive = step.inputs[0], step.linear.positive(step.sign)
        z = step.once("z", lambda: positive.apply(x) + 0.01)
        return [Relevance(positive.transpose(above[0].divided_by(z), x.shape), x)]


def test_a_rule_with_an_epsilon_is_its_formula(with_epsilon: None) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double().eval()
    x = torch.rand(2, 6, dtype=torch.float64)
    net = ebp_cuda.from_torch(module, x)
    relevance = ebp_cuda.ExcitationBackprop(net, "0", rules="caffe", dtype="fp64").relevance(x, "all")
    hidden = module[1](module[0](x))
    plus = module[2].weight.detach().clamp(min=0)  # [4, 5]
    r = torch.eye(4, dtype=torch.float64) / (hidden @ plus.T + 0.01)[:, None]  # [2, 4 classes, 4]
    torch.testing.assert_close(relevance, hidden[:, None] * (r @ plus) * (hidden > 0)[:, None])
