"""The explorer in a real Chromium: what a person does there, with every request to another host blocked and failing.

Screenshots are kept in build/screenshots.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.paths import ROOT
from support.serving import Site, digits_model, scene, serving

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving(digits_model()) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Visit:
    """A page of the explorer, and what went wrong on it."""

    def __init__(self, browser: Any, site: Site) -> None:
        self.elsewhere: list[str] = []
        self.faults: list[str] = []
        self.page = browser.new_page(viewport={"width": 1400, "height": 950})
        self.page.set_default_timeout(60_000)
        self.page.route("**/*", self._only_here)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("websocket", lambda socket: self.elsewhere.append(socket.url))
        self.maps = 0
        self.page.goto(site.address)
        self.page.wait_for_selector("#methods input")

    def _only_here(self, route: Any) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("data", "blob") or address.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def upload(self, name: str, data: bytes) -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})

    def drawn(self) -> None:
        """Waits for the next map."""
        self.maps += 1
        self.page.wait_for_selector(f'body[data-maps="{self.maps}"]')

    def pixels(self, canvas: str) -> list[int]:
        return self.page.evaluate(
            "id => Array.from(document.getElementById(id).getContext('2d').getImageData(0, 0, 112, 112).data)", canvas
        )

    def picture(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert (width, height >= 900) == (1400, True)


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Visit]:
    opened = Visit(browser, site)
    yield opened
    opened.page.close()
    assert opened.elsewhere == []
    assert opened.faults == []


def test_a_photo_shows_its_first_class_and_a_click_another(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    first = visit.page.locator('#classes button[aria-pressed="true"]')
    assert first.count() == 1
    assert visit.page.text_content("#caption").startswith(first.locator("span").first.text_content())
    before = visit.pixels("map")
    visit.page.click("#classes li:nth-child(2) button")
    visit.drawn()
    assert visit.pixels("map") != before
    visit.picture("click")


def test_the_slider_goes_through_the_layers(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    captions = {visit.page.text_content("#caption")}
    last = int(visit.page.get_attribute("#layer", "max"))
    for layer in range(last + 1):
        if visit.page.input_value("#layer") != str(layer):
            visit.page.locator("#layer").fill(str(layer))
            visit.drawn()
        captions.add(visit.page.text_content("#caption"))
    assert len(captions) == last + 1
    visit.picture("layer")


def test_a_click_into_the_picture_ranks_the_classes_there(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    visit.page.click("#map", position={"x": 100, "y": 100})
    visit.page.wait_for_selector("#place:not([hidden])")
    shares = [float(text) for text in visit.page.locator("#ranked td:nth-child(2)").all_text_contents()]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    visit.picture("place")
    best = visit.page.locator("#ranked tr").first
    name = best.locator("td").first.text_content()
    best.click()
    visit.drawn()
    assert visit.page.text_content("#caption").startswith(f"{name},")


def test_hover_tells_the_number_behind_a_pixel(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    box = visit.page.locator("#map").bounding_box()
    visit.page.hover("#map", position={"x": box["width"] - 2, "y": box["height"] / 2})
    shown = visit.page.text_content("#value")
    assert "column 27 of 28 x 28" in shown
    assert "of the map's mass" in shown


def test_methods_colors_and_opacity_change_the_picture(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    seen = [visit.pixels("map")]
    for method in ("mwp", "versus", "grad-cam", "c-mwp"):
        visit.page.check(f'input[value="{method}"]')
        visit.drawn()
        seen.append(visit.pixels("map"))
    assert seen[-1] == seen[0]
    visit.page.check("#negative")
    seen.append(visit.pixels("map"))
    visit.page.select_option("#colors", "cividis")
    seen.append(visit.pixels("map"))
    visit.page.locator("#opacity").fill("0")
    seen.append(visit.pixels("map"))
    assert len({tuple(one) for one in seen}) == len(seen) - 1
    visit.page.locator("#opacity").fill("90")
    visit.page.check("#compare")
    visit.page.wait_for_selector("#beside:not([hidden])")
    assert visit.pixels("other") != visit.pixels("map")
    visit.picture("compare")


def test_maps_and_pictures_are_downloaded(visit: Visit, tmp_path: Path) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    starts = {"npz": b"PK", "npy": b"\x93NUMPY", "png": b"\x89PNG"}
    for kind, start in starts.items():
        with visit.page.expect_download() as waiting:
            visit.page.click(f"#{kind}")
        waiting.value.save_as(tmp_path / kind)
        assert waiting.value.suggested_filename.endswith(f"_c-mwp.{kind}")
        assert (tmp_path / kind).read_bytes().startswith(start)


def test_a_broken_file_is_told_in_a_sentence_and_the_photo_stays(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    before = visit.pixels("map")
    visit.upload("broken <b>.png", b"this is no picture")
    visit.page.wait_for_selector("#message.error")
    assert visit.page.text_content("#message") == (
        "broken <b>.png: not an image that Pillow reads (arrays are read from .npy)"
    )
    assert visit.pixels("map") == before
    visit.picture("broken")
    visit.page.click("#classes li:nth-child(3) button")
    visit.drawn()
    assert visit.page.locator("#message.error").count() == 0


def test_a_class_is_found_by_its_number_and_an_unknown_one_is_told(visit: Visit) -> None:
    visit.upload("scene.png", scene(3))
    visit.drawn()
    visit.page.fill("#search", "9")
    visit.page.press("#search", "Enter")
    visit.drawn()
    assert visit.page.get_attribute('#classes button[aria-pressed="true"]', "data-class") == "9"
    visit.page.fill("#search", "unicorn")
    visit.page.press("#search", "Enter")
    visit.page.wait_for_selector("#message.error")
    assert "unicorn" in visit.page.text_content("#message")


def test_a_sample_opens_by_a_click(visit: Visit) -> None:
    visit.page.click('#samples button:has-text("digits-1")')
    visit.drawn()
    assert visit.page.text_content("#message").startswith("digits-1: ")
