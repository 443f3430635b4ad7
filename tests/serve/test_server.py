"""The server: its maps are those of the package, its bounds hold, what it refuses it says in a sentence."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from support.serving import Site, array, digits_model, scene, serving

from ebp_cuda.errors import InputError
from ebp_cuda.images.preprocess import prepare
from ebp_cuda.models import digits
from ebp_cuda.serve.limits import Limits
from ebp_cuda.serve.model import Model

OCTETS = {"Content_Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def model() -> Model:
    return digits_model()


@pytest.fixture(scope="module")
def site(model: Model) -> Iterator[Site]:
    with serving(model, Limits(max_bytes=300_000, max_pixels=200_000, photos=3)) as running:
        yield running


@pytest.fixture(scope="module")
def photo(site: Site) -> str:
    return site.ask("POST", "/api/photos", scene()).json["id"]


def x_of(model: Model, data: bytes) -> torch.Tensor:
    return prepare(np.asarray(Image.open(io.BytesIO(data))), model.how)


@pytest.mark.parametrize("method", ["c-mwp", "mwp"])
def test_every_layer_has_the_map_of_the_package(site: Site, model: Model, photo: str, method: str) -> None:
    import ebp_cuda

    contrast = digits.CONTRAST_LAYER if method == "c-mwp" else None
    for number, layer in enumerate(model.layers):
        answer = site.ask("GET", f"/api/photos/{photo}/map?class=7&layer={number}&method={method}").json
        eb = ebp_cuda.ExcitationBackprop(model.net, layer.layer, contrast, rules=model.plan.rules)
        result = eb.run(x_of(model, scene()), 7)
        np.testing.assert_allclose(array(answer), result.maps[0, 0], rtol=1e-4, atol=1e-6 * float(result.maps.max()))
        assert answer["mass_left"] == pytest.approx(float(result.mass_left), rel=1e-4)
        assert answer["score"] == pytest.approx(float(result.scores[0, 7]), rel=1e-4)


def test_class_against_class_is_the_difference_of_their_maps(site: Site, model: Model, photo: str) -> None:
    ask = f"/api/photos/{photo}/map?layer={model.layer}"
    mine, other = (array(site.ask("GET", f"{ask}&class={n}&method=mwp").json) for n in (7, 3))
    versus = array(site.ask("GET", f"{ask}&class=7&method=versus&against=3").json)
    np.testing.assert_allclose(versus, mine - other, atol=1e-5 * np.abs(mine).max())


def test_grad_cam_is_that_of_the_evaluations(site: Site, model: Model, photo: str) -> None:
    from ebp_cuda.eval.baselines import grad_cam
    from ebp_cuda.eval.graph_module import GraphModule

    answer = site.ask("GET", f"/api/photos/{photo}/map?class=7&layer=0&method=grad-cam").json
    maps = grad_cam(GraphModule(model.net.graph, model.net.default_top()), model.cam_layer)
    expected = maps(x_of(model, scene()), torch.tensor([[7]]))[0, 0]
    np.testing.assert_allclose(array(answer), expected, rtol=1e-4, atol=1e-6)
    assert answer["mass_left"] is None


def test_classes_at_a_place_are_ranked_by_their_maps_there(site: Site, model: Model, photo: str) -> None:
    answer = site.ask("GET", f"/api/photos/{photo}/classes-at?layer={model.layer}&row=5&column=6").json
    maps = [array(site.ask("GET", f"/api/photos/{photo}/map?class={n}&layer={model.layer}").json) for n in range(10)]
    shares = [one[5, 6] for one in maps]
    assert [one["class"] for one in answer["classes"]] == sorted(range(10), key=lambda n: -shares[n])
    assert answer["classes"][0]["share"] == pytest.approx(max(shares), rel=1e-3)


def test_files_of_a_map_hold_its_numbers_and_what_made_it(site: Site, model: Model, photo: str) -> None:
    ask = f"?class=7&layer={model.layer}"
    numbers = array(site.ask("GET", f"/api/photos/{photo}/map{ask}").json)
    npy = site.ask("GET", f"/api/photos/{photo}/map.npy{ask}")
    assert np.array_equal(np.load(io.BytesIO(npy.body)), numbers)
    assert npy.headers["content-disposition"] == 'attachment; filename="map_7_c-mwp.npy"'
    npz = np.load(io.BytesIO(site.ask("GET", f"/api/photos/{photo}/map.npz{ask}").body))
    assert np.array_equal(npz["maps"][0, 0], numbers)
    assert (npz["targets"].item(), str(npz["layer"]), str(npz["contrast_layer"])) == (
        7,
        digits.LAYER,
        digits.CONTRAST_LAYER,
    )
    assert Image.open(io.BytesIO(site.ask("GET", f"/api/photos/{photo}/map.png{ask}").body)).size == (112, 112)


def test_the_page_is_whole_and_names_no_other_server(site: Site) -> None:
    import re

    for path in ("/", "/page.js", "/page.css"):
        answer = site.ask("GET", path)
        assert answer.status == 200
        assert not re.search(rb"https?://", answer.body)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "The file is empty"),
        (b"no image", 400, "not an image that Pillow reads"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), 400, "not an image that Pillow reads"),
        (bytes(400_000), 413, "larger than 0.286102 MiB"),
    ],
    ids=["empty", "text", "damaged", "large"],
)
def test_what_is_no_photo_is_refused_in_a_sentence(site: Site, data: bytes, status: int, words: str) -> None:
    for path in ("/api/photos", "/attribute"):
        answer = site.ask("POST", path, data)
        assert answer.status == status
        assert words in answer.error


def test_a_photo_of_too_many_pixels_is_refused_before_it_is_decoded(site: Site) -> None:
    file = io.BytesIO()
    Image.new("1", (3000, 3000)).save(file, "PNG")
    assert (
        "3000 x 3000 = 9000000 pixels, more than the 200000" in site.ask("POST", "/api/photos", file.getvalue()).error
    )


def test_a_body_of_no_declared_length_is_cut_off_at_the_limit(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        answer = b""
        try:
            for _ in range(1000):
                connection.sendall(piece)
        except OSError:
            pass  # the server has hung up
        try:
            answer = connection.recv(1000)
        except OSError:
            return
    assert not answer or answer.startswith(b"HTTP/1.1 413")


def test_an_upload_that_takes_too_long_is_given_up(model: Model) -> None:
    head = b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
    limits = Limits(upload_seconds=0.3)
    with serving(model, limits) as site, socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/page.js/../app.py", "/api/samples/..%2F..%2Fetc%2Fpasswd", "/etc/passwd", "//etc/passwd"],
)
def test_no_path_of_the_machine_can_be_asked_for(site: Site, path: str) -> None:
    for method in ("GET", "POST"):
        answer = site.ask(method, path)
        assert answer.status in (404, 405)
        assert b"root:" not in answer.body and b"import" not in answer.body


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("class=10&layer=0", 400, "class 10: the model has classes 0 to 9"),
        ("class=-1&layer=0", 400, "class -1"),
        ("class=1&layer=99", 400, "layer 99: the model has layers 0 to"),
        ("class=a&layer=0", 400, "class: Input should be a valid integer"),
        ("layer=0", 400, "class: Field required"),
        ("class=1&layer=0&method=magic", 400, "There is no method 'magic'"),
        ("class=1&layer=0&method=versus", 400, "choose two different classes"),
        ("class=1&layer=0&method=versus&against=1", 400, "choose two different classes"),
        ("class=1&layer=0&method=versus&against=77", 400, "class 77"),
    ],
)
def test_a_question_that_has_no_answer_is_refused_in_a_sentence(
    site: Site, photo: str, query: str, status: int, words: str
) -> None:
    answer = site.ask("GET", f"/api/photos/{photo}/map?{query}")
    assert (answer.status, words in answer.error) == (status, True), answer.error


def test_a_place_outside_of_the_map_is_refused(site: Site, photo: str) -> None:
    answer = site.ask("GET", f"/api/photos/{photo}/classes-at?layer=0&row=5000&column=0")
    assert answer.status == 400
    assert "5000" in answer.error


def test_the_oldest_photo_goes_when_there_is_no_more_room(model: Model) -> None:
    with serving(model, Limits(photos=2)) as site:
        first, second, _ = (site.ask("POST", "/api/photos", scene(n)).json["id"] for n in range(3))
        assert "no longer kept" in site.ask("GET", f"/api/photos/{first}/map?class=1&layer=0").error
        assert site.ask("GET", f"/api/photos/{second}/picture").status == 200


def test_pages_of_other_servers_are_refused(site: Site) -> None:
    assert site.ask("POST", "/api/photos", scene(), Origin="http://elsewhere.example").status == 403
    assert site.ask("POST", "/api/photos", scene(), Origin=site.address).status == 200
    assert site.ask("GET", "/api/model", Host="elsewhere.example").status == 400  # a name that was made to lead here


def test_a_slow_request_does_not_hold_up_another(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()
    forward = model.forward

    def slow(name: str, data: bytes, max_pixels: int):  # type: ignore[no-untyped-def]
        if name == "slow":
            begun.set()
            assert ended.wait(60)
        return forward(name, data, max_pixels)

    monkeypatch.setattr(model, "forward", slow)
    with serving(model) as site, ThreadPoolExecutor(1) as other:
        key = site.ask("POST", "/api/photos", scene()).json["id"]
        waiting = other.submit(site.ask, "POST", "/api/photos", scene(), X_File_Name="slow")
        assert begun.wait(60)
        try:
            assert site.ask("GET", f"/api/photos/{key}/map?class=1&layer=0").status == 200
            assert site.ask("GET", "/").status == 200
            assert not waiting.done()
        finally:
            ended.set()
        assert waiting.result().status == 200


def test_too_many_requests_are_refused_at_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(model, "forward", lambda *_: ended.wait(60) and model)
    with serving(model, Limits(at_once=1, waiting=1)) as site, ThreadPoolExecutor(3) as others:
        waiting = [others.submit(site.ask, "POST", "/api/photos", scene()) for _ in range(3)]
        try:
            until = time.monotonic() + 30
            while not any(one.done() for one in waiting) and time.monotonic() < until:
                time.sleep(0.02)
            (refused,) = [one.result() for one in waiting if one.done()]
        finally:
            ended.set()
        assert refused.status == 503
        assert "busy" in refused.error


def test_an_unforeseen_fault_is_a_sentence_without_its_insides(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret of the insides")

    monkeypatch.setattr(model, "forward", broken)
    with serving(model) as site:
        answer = site.ask("POST", "/api/photos", scene())
        assert answer.status == 500
        assert answer.error == "Something went wrong here that should not (RuntimeError)."


def test_a_model_without_planes_is_refused() -> None:
    import ebp_cuda

    net = ebp_cuda.from_torch(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)), torch.rand(1, 4)
    )
    with pytest.raises(InputError, match="the explorer shows planes"):
        Model(net, ebp_cuda.ExcitationBackprop(net, "0", rules="conserving"))


def test_the_command_says_where_it_listens_and_ends_on_request() -> None:
    command = [sys.executable, "-m", "ebp_cuda", "serve", "--model", "digits", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("http://127.0.0.1:") and line.endswith(" answers until Ctrl-C\n")
            running = Site(int(line.split()[0].rpartition(":")[2]), None)
            assert running.ask("GET", "/api/model").json["model"] == "deploy.prototxt"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_a_port_in_use_is_told_before_the_model_is_loaded(site: Site) -> None:
    command = [sys.executable, "-m", "ebp_cuda", "serve", "--model", "absent.onnx", "--port", str(site.port)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"--port {site.port}: cannot listen there" in done.stderr
