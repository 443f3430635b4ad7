"""Downloads against a local server that behaves badly in every way that a real one does."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.bad_server import CONTENT, FILE, Server, serve, status

from ebp_cuda import models
from ebp_cuda.catalogue import download
from ebp_cuda.catalogue.fetch import fetch
from ebp_cuda.errors import InputError, ModelError


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put "tiny" into the catalogue, by default with the size and hashes of CONTENT."""

    def put(**changes: object) -> None:
        hashes = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("sha1", "sha256")}
        fields = {"file": FILE, "urls": (server.url,), "license": "none", "size": len(CONTENT), "hashes": hashes}
        entry = dataclasses.replace(
            models.model("alexnet"), name="tiny", weights=models.Weights(**{**fields, **changes})
        )
        monkeypatch.setitem(models.catalogue.MODELS, "tiny", entry)

    put()
    return put


def get(folder: Path, **options: object) -> Path:
    return fetch("tiny", folder, **{"progress": False, "timeout": 2.0, "backoff": 0.0, **options})


def assert_whole(folder: Path) -> None:
    assert (folder / FILE).read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "tiny.prototxt"]


def assert_absent(folder: Path, *, part: bytes | None) -> None:
    """Nothing under the final name; the part file as stated."""
    assert not (folder / FILE).exists()
    left = folder / (FILE + ".part")
    assert (left.read_bytes() if left.exists() else None) == part


def test_downloads_and_writes_the_prototxt(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert get(folder) == folder / FILE
    assert_whole(folder)
    assert (folder / "tiny.prototxt").read_text() == models.prototxt("tiny")


def test_second_call_checks_instead_of_fetching(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    get(tmp_path)
    (tmp_path / "tiny.prototxt").write_text("edited")
    get(tmp_path)
    assert len(server.ranges) == 1
    assert (tmp_path / "tiny.prototxt").read_text() == "edited"


def test_resumes_after_each_drop(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    server.answer = lambda handler, number: serve(handler, number, stop_after=100_000)
    get(tmp_path, attempts=2)
    assert_whole(tmp_path)
    assert server.ranges == [None, *(f"bytes={n}00000-" for n in range(1, 6))]


def test_next_call_resumes_what_the_last_one_left(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    def drop_once(handler: BaseHTTPRequestHandler, number: int) -> None:
        serve(handler, number, stop_after=300_000) if number == 1 else status(503)(handler, number)

    server.answer = drop_once
    with pytest.raises(ModelError, match=r"HTTP 503.*300000 bytes wait in"):
        get(tmp_path, attempts=2)
    assert_absent(tmp_path, part=CONTENT[:300_000])
    server.answer = serve
    get(tmp_path)
    assert server.ranges[-1] == "bytes=300000-"
    assert_whole(tmp_path)


def test_server_without_ranges_starts_over(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        serve(handler, number, ranges=False, etag=None, stop_after=200_000 if number < 3 else None)

    server.answer = answer
    get(tmp_path)
    assert len(server.ranges) == 3
    assert_whole(tmp_path)


def test_gives_up_when_every_try_ends_at_the_same_byte(
    server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    server.answer = lambda handler, number: serve(handler, number, ranges=False, stop_after=200_000)
    with pytest.raises(ModelError, match=r"200000 of 524288 bytes.*given up after 4 tries"):
        get(tmp_path, attempts=4)
    assert len(server.ranges) == 4
    assert_absent(tmp_path, part=CONTENT[:200_000])


def test_file_changed_between_two_parts(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(size=None, hashes={})
    old = CONTENT[::-1]
    server.answer = lambda handler, number: (
        serve(handler, number, content=old, etag='"v0"', stop_after=100_000) if number == 1 else serve(handler, number)
    )
    get(tmp_path)
    assert server.ranges == [None, "bytes=100000-"]
    assert_whole(tmp_path)


def test_without_hash_or_version_the_old_part_is_not_trusted(
    server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    publish(size=None, hashes={})
    (tmp_path / (FILE + ".part")).write_bytes(b"something else")
    get(tmp_path)
    assert server.ranges == [None]
    assert_whole(tmp_path)


def test_wrong_old_part_is_replaced(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / (FILE + ".part")).write_bytes(b"x" * 1000)
    get(tmp_path)
    assert server.ranges == ["bytes=1000-", None]
    assert_whole(tmp_path)


def test_part_that_is_already_whole_needs_no_request(
    server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / (FILE + ".part")).write_bytes(CONTENT)
    get(tmp_path)
    assert server.ranges == []
    assert_whole(tmp_path)


def test_whole_part_of_unknown_size(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(size=None)
    (tmp_path / (FILE + ".part")).write_bytes(CONTENT)
    get(tmp_path)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert_whole(tmp_path)


def test_wrong_hash_is_deleted(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + b"?"
    server.answer = lambda handler, number: serve(handler, number, content=wrong)
    with pytest.raises(ModelError) as caught:
        get(tmp_path)
    assert hashlib.sha1(wrong).hexdigest() in str(caught.value)
    assert hashlib.sha1(CONTENT).hexdigest() in str(caught.value)
    assert_absent(tmp_path, part=None)
    assert list(tmp_path.iterdir()) == []


def test_wrong_announced_size_is_refused_before_the_body(
    server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    server.answer = lambda handler, number: serve(handler, number, content=b"short")
    with pytest.raises(ModelError, match="offers 5 bytes, the published file has 524288"):
        get(tmp_path)
    assert len(server.ranges) == 1
    assert_absent(tmp_path, part=None)


def test_web_page_in_place_of_the_file(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(size=None, hashes={})
    server.answer = lambda handler, number: serve(
        handler, number, content=b"<html>sign in", kind="text/html; charset=utf-8"
    )
    with pytest.raises(ModelError, match="web page"):
        get(tmp_path)
    assert_absent(tmp_path, part=None)


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (403, 1), (500, 3), (429, 3)])
def test_http_errors(server: Server, publish: Callable[..., None], tmp_path: Path, code: int, tries: int) -> None:
    server.answer = status(code)
    with pytest.raises(ModelError, match=f"could not fetch {FILE}.*{server.url}: HTTP {code}"):
        get(tmp_path, attempts=3)
    assert len(server.ranges) == tries
    assert_absent(tmp_path, part=None)


def test_second_address_takes_over(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(urls=(server.url + "?gone", server.url))
    server.answer = lambda handler, number: (status(404) if "gone" in handler.path else serve)(handler, number)
    get(tmp_path)
    assert_whole(tmp_path)


def test_stalled_connection_is_broken_off(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    def stall_once(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            serve(handler, number, stop_after=50_000)
            handler.wfile.flush()
            time.sleep(1.5)
        else:
            serve(handler, number)

    server.answer = stall_once
    began = time.monotonic()
    get(tmp_path, timeout=0.2)
    assert time.monotonic() - began < 1.4
    assert server.ranges == [None, "bytes=50000-"]
    assert_whole(tmp_path)


def test_no_network(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    server.close()
    with pytest.raises(ModelError, match="refused"):
        get(tmp_path, attempts=2)
    assert_absent(tmp_path, part=None)


@pytest.mark.parametrize(("code", "tries"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
def test_unknown_host(
    publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    asked = []

    def getaddrinfo(host: str, *args: object, **options: object) -> None:
        asked.append(host)
        raise socket.gaierror(code, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ModelError, match="no such host"):
        get(tmp_path, url="http://weights.invalid/file", attempts=3)
    assert asked == ["weights.invalid"] * tries


def test_disk_without_room(
    server: Server, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ModelError, match="no room on the disk"):
        get(tmp_path)
    assert_absent(tmp_path, part=None)


def test_disk_that_fills_up_midway(
    server: Server, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: download._Part, response: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download._Part, "_read", full)
    with pytest.raises(ModelError, match=rf"cannot write .*{FILE}\.part: no room on the disk"):
        get(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_version_is_noted_for_the_next_call(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    server.answer = lambda handler, number: serve(handler, number, stop_after=1000 if number == 1 else 0)
    with pytest.raises(ModelError):
        get(tmp_path, attempts=2)
    assert json.loads((tmp_path / (FILE + ".part.json")).read_text()) == {"url": server.url, "validator": '"v1"'}


def test_other_file_in_the_way_is_left_alone(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"mine")
    with pytest.raises(InputError, match="4 bytes, wanted 524288"):
        get(tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"mine"
    assert server.ranges == []


def test_url_argument_replaces_the_published_ones(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(urls=("http://127.0.0.1:9/never",))
    get(tmp_path, url=server.url)
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "nearest: vgg16|nearest: vgg19"),
        ("tiny", {"url": "file:///etc/hosts"}, "not an http"),
        ("tiny", {"attempts": 0}, "attempts >= 1"),
        ("tiny", {"timeout": 0.0}, "timeout > 0"),
    ],
)
def test_bad_arguments(
    publish: Callable[..., None], tmp_path: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch(name, tmp_path / "folder", progress=False, **options)
    assert not (tmp_path / "folder").exists()


def test_malformed_address(publish: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not an address"):
        get(tmp_path, url="http://[half")


def test_folder_that_is_a_file(publish: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        get(tmp_path / "folder")


def test_notes_on_stderr(
    server: Server, publish: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(size=None, hashes={})
    get(tmp_path, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert hashlib.sha256(CONTENT).hexdigest() in said.err.replace("\n", "")


def test_answer_that_continues_elsewhere(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    """A server that answers a range with other bytes than asked: start over."""

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number > 1:
            return serve(handler, number)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT)

    (tmp_path / (FILE + ".part")).write_bytes(CONTENT[:1000])
    server.answer = answer
    with pytest.raises(ModelError, match="asked for bytes from 1000, got 'bytes 0-524287/524288'"):
        get(tmp_path, attempts=1)
    assert_absent(tmp_path, part=None)
    get(tmp_path)
    assert server.ranges == ["bytes=1000-", None]
    assert_whole(tmp_path)


def trickle(handler: BaseHTTPRequestHandler, data: bytes, pause: float = 0.05) -> None:
    """Sends byte after byte, until nobody listens."""
    try:
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(pause)
    except OSError:
        pass


def head(handler: BaseHTTPRequestHandler, length: int | None = len(CONTENT), code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def test_a_trickle_is_ended_by_its_rate(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    """No pause is longer than the timeout, so silence alone would never end it."""

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        head(handler)
        trickle(handler, CONTENT)

    server.answer = answer
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"bytes a second over \d s, too slow to go on with"):
        get(tmp_path, timeout=1.0)
    assert time.monotonic() - start < 20


def test_one_byte_of_every_connection_is_a_trickle_too(
    server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    server.answer = lambda handler, number: serve(handler, number, stop_after=1)
    with pytest.raises(ModelError, match="too slow to go on with"):
        get(tmp_path, timeout=0.5, attempts=3)


def test_a_head_that_trickles_is_cut_off(server: Server, publish: Callable[..., None], tmp_path: Path) -> None:
    server.answer = lambda handler, number: trickle(handler, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000)
    start = time.monotonic()
    with pytest.raises(ModelError, match="could not fetch"):
        get(tmp_path, timeout=0.5, attempts=2)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_no_more_is_taken_than_the_file_has(
    size: int | None, server: Server, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LIMIT", len(CONTENT))
    publish(size=size, hashes={})

    def endless(handler: BaseHTTPRequestHandler, number: int) -> None:
        head(handler, None)
        try:
            while True:
                handler.wfile.write(CONTENT)
        except OSError:
            pass

    server.answer = endless
    with pytest.raises(ModelError, match=f"sent more than the {len(CONTENT)} bytes of the file"):
        get(tmp_path)
    assert_absent(tmp_path, part=None)
    server.answer = lambda handler, number: head(handler, len(CONTENT) + 1)
    with pytest.raises(ModelError, match=f"offers {len(CONTENT) + 1} bytes"):
        get(tmp_path)


@pytest.mark.parametrize(
    "lie",
    [
        lambda h, n: head(h, code=206, Content_Range="bytes 0-9/" + "9" * 5000),
        lambda h, n: head(h, code=206, Content_Range="bytes 7-9/10"),
        lambda h, n: head(h, code=206),
        lambda h, n: head(h, None, Content_Length="9" * 5000),
        lambda h, n: head(h, None, Content_Length="\u00b2"),
        lambda h, n: head(h, None, Content_Length="-5"),
        lambda h, n: head(h, 5, Content_Encoding="gzip"),
        lambda h, n: head(h, 0, code=302, Location="file:///etc/passwd"),
        lambda h, n: head(h, 0, code=302, Location="ftp://127.0.0.1/x"),
        lambda h, n: head(h, 0, code=302, Location="http://[::1"),
        lambda h, n: head(h, 0, code=302, Location=f"/{n}"),
        lambda h, n: head(h, 0, code=999),
        lambda h, n: h.wfile.write(b"HTTP/1.1 abc\r\n\r\n"),
        lambda h, n: h.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
        lambda h, n: h.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
        lambda h, n: h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        lambda h, n: h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"),
        lambda h, n: h.wfile.write(b"\xff\xfe" * 100),
    ],
)
def test_every_lie_of_a_server_is_one_error(
    lie: Callable[[BaseHTTPRequestHandler, int], None], server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    server.answer = lie
    with pytest.raises(ModelError, match="could not fetch"):
        get(tmp_path, attempts=2)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("etag", ['"a\x7fb"', '"' + "v" * 5000 + '"', '"\xe9"'])
def test_a_version_that_fits_into_no_request_is_not_sent_back(
    etag: str, server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    server.answer = lambda handler, number: serve(handler, number, etag=etag, stop_after=300_000)
    get(tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("suffix", [".part", ".part.json"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_nothing_that_was_planted_is_written_through(
    suffix: str, kind: str, server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "out" / (FILE + suffix)
    planted.parent.mkdir()
    victim.write_text("{}")
    if kind == "pipe":
        os.mkfifo(planted)
    else:
        (planted.symlink_to if kind == "link" else planted.hardlink_to)(victim)
    try:
        get(planted.parent)
    except ModelError as error:
        assert suffix == ".part" and "cannot write" in str(error)
    else:
        assert_whole(planted.parent)
    assert victim.read_text() == "{}"


@pytest.mark.parametrize("note", ["[" * 100_000, '{"validator": 5}', '{"url": {}, "validator": "a\\r\\nX: y"}', "\x00"])
def test_a_note_that_was_planted_is_not_believed(
    note: str, server: Server, publish: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / (FILE + ".part")).write_bytes(CONTENT[:1000])
    (tmp_path / (FILE + ".part.json")).write_text(note.replace('{"url": {}', json.dumps({"url": server.url})[:-1]))
    get(tmp_path)
    assert_whole(tmp_path)
