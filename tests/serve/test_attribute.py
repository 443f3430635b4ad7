"""`POST /attribute`: 50 requests at a time get what one gets alone, in fewer calls."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from support.serving import Site, array, digits_model, scene, serving

from ebp_cuda.images.preprocess import prepare
from ebp_cuda.serve.batching import Batcher
from ebp_cuda.serve.limits import Limits, Refused
from ebp_cuda.serve.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return digits_model()


@pytest.fixture(scope="module")
def site(model: Model) -> Iterator[Site]:
    with serving(model, Limits(batch_seconds=0.05)) as running:
        yield running


def expected(model: Model, data: bytes, target: str | list[int]) -> tuple[np.ndarray, list[int]]:
    x = prepare(np.asarray(Image.open(io.BytesIO(data))), model.how)
    result = model.method.run(x, target if isinstance(target, str) else torch.tensor([target]))
    return result.maps[0].numpy(), result.targets[0].tolist()


def test_fifty_requests_at_a_time_get_their_own_maps(site: Site, model: Model) -> None:
    photos = [scene(number) for number in range(10)]
    queries = ["top1", "top3", "7", "3,8"]
    asked = [(photos[n % 10], queries[n % 4]) for n in range(50)]
    before = site.app.state.server.batcher.calls
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda one: site.ask("POST", f"/attribute?target={one[1]}", one[0]), asked))
    assert [answer.body for answer in answers if answer.status != 200] == []
    for (data, query), answer in zip(asked, answers, strict=True):
        target = query if query.startswith("top") else [int(part) for part in query.split(",")]
        maps, classes = expected(model, data, target)
        assert [one["class"] for one in answer.json["classes"]] == classes
        np.testing.assert_allclose(array(answer.json["maps"]), maps, rtol=1e-4, atol=1e-5 * np.abs(maps).max())
    assert site.app.state.server.batcher.calls - before < 50


def test_a_broken_photo_among_fifty_fails_alone(site: Site) -> None:
    photos = [b"no image" if n == 20 else scene(n % 10) for n in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda data: site.ask("POST", "/attribute", data), photos))
    assert [answer.status for answer in answers] == [400 if n == 20 else 200 for n in range(50)]
    assert "not an image" in answers[20].error


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("12", "the model has classes 0 to 9"),
        ("top99", "the model has 10 classes"),
        ("cat", "no such class"),
        (",", "empty"),
    ],
)
def test_a_target_that_there_is_not_is_a_sentence(site: Site, target: str, words: str) -> None:
    answer = site.ask("POST", f"/attribute?target={target}", scene())
    assert answer.status == 400
    assert words in answer.error


def test_more_classes_than_a_request_may_ask_for_are_refused(model: Model) -> None:
    with serving(model, Limits(classes=3)) as site:
        assert "At most 3" in site.ask("POST", "/attribute?target=all", scene()).error


def test_what_is_wrong_with_one_image_is_told_of_that_image_alone(model: Model) -> None:
    batcher = Batcher(model.method, Limits(batch_seconds=0.2))
    good = torch.rand(1, 3, 112, 112)
    answers = [batcher.submit(x, "top1") for x in (good, good * float("nan"), good)]
    assert answers[0].result(60).maps.shape == answers[2].result(60).maps.shape
    with pytest.raises(Exception, match="NaN"):
        answers[1].result(60)
    batcher.close()


def test_jobs_of_two_kinds_do_not_mix_and_none_is_lost(model: Model) -> None:
    batcher = Batcher(model.method, Limits(batch_seconds=5, batch=4))
    x = torch.rand(1, 3, 112, 112)
    targets = ["top1", torch.tensor([[1, 2]]), "top1", torch.tensor([[3, 4]]), "top2"]
    answers = [batcher.submit(x, target) for target in targets]
    batcher.close()
    assert [answer.result(0).targets.shape[1] for answer in answers] == [1, 2, 1, 2, 2]
    assert answers[3].result().targets.tolist() == [[3, 4]]
    assert batcher.calls == 3


def test_a_full_queue_refuses_at_once(model: Model) -> None:
    batcher = Batcher(model.method, Limits(waiting=1, batch=1))
    with pytest.raises(Refused, match="busy"):
        for _ in range(200):
            batcher.submit(torch.rand(1, 3, 112, 112), "top1")
    batcher.close()
