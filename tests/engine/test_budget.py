"""max_memory: maps in parts are those of one call, the parts fit, and the account of memory is what a process takes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch
from support import paths
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError
from ebp_cuda.engine.budget import Account, bytes_of
from ebp_cuda.ops import memory
from ebp_cuda.questions import question

CLASSES = 1000


@pytest.fixture(scope="module")
def net() -> ebp_cuda.Net:
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 36, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    return ebp_cuda.from_torch(module.eval(), torch.rand(2, 3, 16, 16))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def methods(net: ebp_cuda.Net, images: int, classes: int) -> tuple[ExcitationBackprop, ExcitationBackprop]:
    """The method without a bound, and with one that just fits so many images and classes at once."""
    whole = ExcitationBackprop(net, "0", "6", "caffe")
    peak = whole.chunks((images, 3, 16, 16), classes).peak
    return whole, ExcitationBackprop(net, "0", "6", "caffe", max_memory=peak)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("300mb", 3 * 10**8), (4096, 4096), ("7K", 7000), ("12", 12)],
)
def test_sizes_as_people_write_them(text: str | int, wanted: int) -> None:
    assert bytes_of(text) == wanted


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 parsecs", 0, "0MB", None, True])
def test_other_sizes_are_refused(net: ebp_cuda.Net, text: object) -> None:
    with pytest.raises(InputError, match="max_memory="):
        bytes_of(text)  # type: ignore[arg-type]


def test_classes_stay_together_and_images_go_apart_first() -> None:
    account = Account(((1000, 10), (100, 40)), CLASSES)
    one = account.peak(1, 1)
    assert account.split(8, 20, 10**9) == account.split(8, 20, account.peak(8, 20))
    assert (account.split(8, 20, account.peak(3, 20)).images, account.split(8, 20, account.peak(3, 20)).classes) == (
        3,
        20,
    )
    narrow = account.split(8, 500, account.peak(1, 70))
    assert (narrow.images, narrow.classes, narrow.peak) == (1, 70, account.peak(1, 70))
    assert [part.stop - part.start for part in narrow.of_classes(500)] == [62, 63, 62, 63, 62, 63, 62, 63]
    with pytest.raises(InputError, match=f"max_memory={one - 1}: one class of one image takes about {one} bytes"):
        account.split(8, 20, one - 1)


@pytest.mark.parametrize(
    "target",
    [7, [1, 2, 3, 4, 5], "top3", torch.arange(200).reshape(5, 40), "all"],
    ids=["one", "per image", "top", "many per image", "all 1000"],
)
@pytest.mark.parametrize("fits", [(2, CLASSES), (1, 9), (1, 1)], ids=["two images", "nine classes", "one class"])
def test_parts_give_the_maps_of_one_call(
    net: ebp_cuda.Net, x: torch.Tensor, target: object, fits: tuple[int, int]
) -> None:
    if fits == (1, 1) and isinstance(target, str) and target == "all":
        target, x = torch.arange(CLASSES - 30, CLASSES).expand(2, 30), x[:2]  # 5000 runs would say no more
    whole, bounded = methods(net, *fits)
    wanted, found = whole.run(x, target), bounded.run(x, target)
    assert torch.equal(found.targets, wanted.targets)
    torch.testing.assert_close(found.scores, wanted.scores)
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-4, atol=1e-5 * float(wanted.maps.abs().max()))
    torch.testing.assert_close(found.mass_left, wanted.mass_left, rtol=1e-4, atol=1e-6)


def test_blocks_of_classes_on_a_cpu_change_nothing(
    net: ebp_cuda.Net, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ExcitationBackprop(net, "0", "6", "caffe")
    target, wide = torch.arange(50).expand(5, 50), 5 * 8 * 16 * 16 * 4
    wanted = whole.run(x, target)
    monkeypatch.setattr(memory, "BLOCK", 7 * wide)
    calls: list[int] = []
    seed = question.class_seed
    monkeypatch.setattr(
        question, "class_seed", lambda top, part, places: calls.append(part.shape[1]) or seed(top, part, places)
    )
    found = whole.run(x, target)
    assert calls == [7] * 7 + [1]
    for one, other in ((found.maps, wanted.maps), (found.mass_left, wanted.mass_left), (found.scores, wanted.scores)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_every_unit_in_parts(net: ebp_cuda.Net, x: torch.Tensor) -> None:
    whole, bounded = methods(net, 1, 2)
    wanted, found = whole.relevance(x, "top5"), bounded.relevance(x, "top5")
    assert found.shape == (5, 5, 8, 16, 16)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_a_wrong_class_is_refused_in_parts_too(net: ebp_cuda.Net, x: torch.Tensor) -> None:
    _, bounded = methods(net, 1, 2)
    with pytest.raises(InputError, match="classes 0 to 999"):
        bounded.run(x, torch.tensor([[1, 2, 3, 1000]]).expand(5, 4))
    with pytest.raises(InputError, match="top1001"):
        bounded.run(x, "top1001")


def test_the_split_is_told(net: ebp_cuda.Net, x: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    whole, bounded = methods(net, 1, 9)
    chunks = bounded.chunks(x.shape, 40)
    assert (chunks.images, chunks.classes) == (1, 9) and whole.chunks(x.shape, 40).classes == 40
    with caplog.at_level(logging.INFO, "ebp_cuda"):
        bounded.run(x, torch.arange(40).expand(5, 40))
    assert "1 images and 9 classes at a time" in caplog.text
    assert bounded.chunks({"input": x.shape}, 0).classes == 9
    with pytest.raises(InputError, match="got shapes for image; wanted one for each of input"):
        bounded.chunks({"image": x.shape}, 40)


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_a_dry_run_answers_rules_that_ask_for_numbers(net: ebp_cuda.Net, x: torch.Tensor, rules: str) -> None:
    """The conserving rules ask whether a neuron got nothing; without numbers the way that takes more counts."""
    whole = ExcitationBackprop(net, "0", "6", rules)
    peak = whole.chunks((1, *x.shape[1:]), 2).peak
    bounded = ExcitationBackprop(net, "0", "6", rules, max_memory=peak)
    found, wanted = bounded.run(x, [[1, 2]] * 5), whole.run(x, [[1, 2]] * 5)
    assert bounded.chunks(x.shape, 2).images == 1
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-4, atol=1e-5 * float(wanted.maps.abs().max()))


def test_too_little_for_anything_is_refused(net: ebp_cuda.Net, x: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"max_memory=1000: one class of one image takes about \d+ bytes"):
        ExcitationBackprop(net, "0", max_memory=1000).run(x, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's account of a process")
@pytest.mark.parametrize(
    ("network", "images", "classes", "limit"),
    [("googlenet_coco", 1, 20, ""), ("googlenet_coco", 8, 1, ""), ("googlenet_coco", 2, 40, "120MB")],
)
def test_the_account_is_what_a_process_takes(network: str, images: int, classes: int, limit: str) -> None:
    """About 4 s each: GoogLeNet in a process of its own, whose resident memory is measured."""
    script = paths.TESTS / "support" / "peak_memory.py"
    command = [sys.executable, script, network, "pool2/3x3_s2", "pool5/7x7_s1", str(images), str(classes), limit]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert found["measured"] <= found["estimated"] <= 3 * found["measured"], found
    if limit:
        assert found["estimated"] <= bytes_of(limit) and found["images"] * found["classes"] < images * classes
