"""What the CPU does faster than ATen gives the same numbers: packed weights, and products that add into one sum."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest
import torch

from ebp_cuda.graph import Node
from ebp_cuda.linear import LinearMap, onednn
from ebp_cuda.linear.cpu import convolution_cpu
from ebp_cuda.rules.relevance import Relevance, add

LAST = torch.channels_last


def operands(
    groups: int = 1, kernel: int = 3, images: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(kernel)
    x = torch.randn(images, 8, 11, 13, generator=source, dtype=dtype).contiguous(memory_format=LAST)
    weight = torch.randn(12, 8 // groups, kernel, kernel, generator=source, dtype=dtype)
    return x, weight, torch.randn(12, generator=source, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [(3, 1, 1, 1, 1), (1, 1, 0, 1, 1), (5, 2, 2, 1, 1), (3, 1, 2, 2, 2), (3, 2, 0, 1, 4)],
)
@torch.no_grad()
def test_it_is_the_convolution(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, dtype: torch.dtype
) -> None:
    x, weight, bias = operands(groups, kernel, dtype=dtype)
    window = [(stride,) * 2, (padding,) * 2, (dilation,) * 2, groups]
    for given in (None, bias):
        found = convolution_cpu(x, weight, given, *window)
        torch.testing.assert_close(found, torch.conv2d(x, weight, given, *window), rtol=1e-5, atol=1e-5)
        assert found.is_contiguous(memory_format=LAST)
    plain = convolution_cpu(x.contiguous(), weight, bias, *window)
    torch.testing.assert_close(plain, found, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_bits_do_not_depend_on_what_came_before() -> None:
    window = [(1, 1), (1, 1), (1, 1), 1]
    x, weight, _ = operands(images=6)
    first = convolution_cpu(x, weight, None, *window)
    assert torch.equal(convolution_cpu(x, weight, None, *window), first)
    other = weight.clone()
    convolution_cpu(x[:1].contiguous(memory_format=LAST), other, None, *window)  # laid out for another size
    assert torch.equal(convolution_cpu(x, other, None, *window), first)


@torch.no_grad()
def test_a_written_weight_is_laid_out_again_and_a_dead_one_forgotten() -> None:
    window = [(1, 1), (1, 1), (1, 1), 1]
    x, weight, _ = operands()
    gc.collect()
    before = len(onednn._laid_out)
    first = convolution_cpu(x, weight, None, *window)
    assert len(onednn._laid_out) == before + 1
    weight *= -2
    torch.testing.assert_close(convolution_cpu(x, weight, None, *window), -2 * first)
    del weight
    gc.collect()
    assert len(onednn._laid_out) == before


def test_where_a_gradient_is_wanted_it_is_torchs_own() -> None:
    x, weight, _ = operands()
    x.requires_grad_()
    convolution_cpu(x, weight, None, (1, 1), (1, 1), (1, 1), 1).sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


POINT = {"stride": (1, 1), "padding": (0, 0), "padding_end": (0, 0), "dilation": (1, 1), "groups": 1}


@dataclass(frozen=True)
class Product:
    """The way down of a 1 x 1 convolution, as it waits and as it is computed at once."""

    rel: Relevance
    r: torch.Tensor
    weight: torch.Tensor

    def written_out(self) -> torch.Tensor:
        return torch.einsum("noyx,oi->niyx", self.r, self.weight.flatten(1))


def parts_of(count: int) -> tuple[list[Product], torch.Tensor]:
    source = torch.Generator().manual_seed(count)
    x = torch.rand(2, 7, 4, 5, generator=source)
    products = []
    for i in range(count):
        r = torch.randn(6, 3 + i, 4, 5, generator=source).contiguous(memory_format=LAST)
        weight = torch.rand(3 + i, 7, 1, 1, generator=source)
        linear = LinearMap.of(Node("point", "conv", ("x",), ("y",), POINT, {"weight": weight}), weight).positive()
        waiting = linear.transpose(r, x.shape)
        assert not waiting.is_computed
        products.append(Product(Relevance(waiting, x), r, weight))
    return products, x


@pytest.mark.parametrize("place", [0, 1, 3])
def test_products_add_as_what_they_stand_for(place: int) -> None:
    products, x = parts_of(3)
    plain = Relevance(torch.randn(6, 7, 4, 5), x)
    kept = plain.s.clone()
    wanted = sum(product.written_out() for product in products) + kept
    waiting = [product.rel for product in products]
    total = add([*waiting[:place], plain, *waiting[place:]])
    assert total.x is x
    torch.testing.assert_close(total.s, wanted)
    assert torch.equal(plain.s, kept)


def test_a_product_that_was_read_keeps_its_value() -> None:
    products, x = parts_of(2)
    read = products[0].rel.s
    before = read.clone()
    total = add([product.rel for product in products])
    torch.testing.assert_close(total.s, sum(product.written_out() for product in products))
    assert torch.equal(read, before) and products[0].rel.s is read
    torch.testing.assert_close(products[0].rel.p(), before * x.repeat_interleave(3, 0))


def test_a_sum_that_is_no_block_of_pixels_is_added_to_as_well() -> None:
    products, x = parts_of(2)
    plain = [Relevance(torch.randn(6, 7, 4, 5), x) for _ in range(2)]  # their sum is contiguous, plane by plane
    total = add([*plain, *(product.rel for product in products)])
    wanted = sum(product.written_out() for product in products) + plain[0].s + plain[1].s
    torch.testing.assert_close(total.s, wanted)


@torch.no_grad()
def test_a_torch_without_these_functions_is_asked_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = operands()
    monkeypatch.setattr(onednn, "_FOUND", False)
    monkeypatch.setattr(onednn, "_convolve", None)
    window = [(1, 1), (1, 1), (1, 1), 1]
    assert torch.equal(convolution_cpu(x, weight, bias, *window), torch.conv2d(x, weight, bias, *window))
