"""`ebp-cuda report`: what stands on the page, that nothing on it is fetched or executed, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.batch_data import SMALL, photos, write_folder

import ebp_cuda
from ebp_cuda import batch
from ebp_cuda.batch.index import index_schema
from ebp_cuda.errors import InputError
from ebp_cuda.eval.records import Records
from ebp_cuda.report import write_report

pytest_plugins = ["support.batch_fixtures"]

HOSTILE = "<img src=x onerror=alert(1)>&\"'<!--<script>alert(2)<" + "/script>.png"


class Page(HTMLParser):
    """The elements of a page, the text of each, and its data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.texts["script"][0])

    def column(self, name: str) -> list[Any]:
        index = [column["name"] for column in self.data["columns"]].index(name)
        return [row[index] for row in self.data["rows"]]


@pytest.fixture(scope="module")
def page(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("report") / "page.html"
    write_report(whole, out)
    return Page(out)


def test_every_row_of_the_index_stands_in_the_table(page: Page, whole: Path) -> None:
    index = [row for row in batch.open(whole).index().to_pylist() if row["error"] is None]
    assert page.column("image") == [row["image"] for row in index]
    assert page.column("score") == pytest.approx([row["score"] for row in index], rel=1e-5)
    assert page.column("mass_left") == pytest.approx([row["mass_left"] for row in index], rel=1e-5)


def test_failures_stand_with_their_reason(page: Page, whole: Path) -> None:
    failed = [row for row in batch.open(whole).index().to_pylist() if row["error"] is not None]
    cells = page.texts["td"]
    assert len(failed) == 2
    for row in failed:
        assert cells[cells.index(row["image"]) + 1] == row["error"]


def test_sheets_hold_the_rows_that_their_title_says(page: Page) -> None:
    scores = page.column("score")
    sheets = {sheet["title"]: sheet["rows"] for sheet in page.data["sheets"]}
    best = sorted(range(len(scores)), key=lambda row: -scores[row])[:24]
    assert [scores[row] for row in sheets["Highest scores"]] == [scores[row] for row in best]
    assert sheets["Lowest scores"][0] == min(range(len(scores)), key=scores.__getitem__)
    labels = page.column("target") if "label" not in [c["name"] for c in page.data["columns"]] else page.column("label")
    for title, rows in sheets.items():
        if title.startswith("Class "):
            assert len({labels[row] for row in rows}) == 1


def test_histograms_count_every_row(page: Page) -> None:
    bars = [int(text.removesuffix(" rows")) for text in page.texts["title"] if text.endswith(" rows")]
    shown = [text.strip() for text in page.texts["figcaption"]]
    assert shown == ["score", "mass left"]
    assert sum(bars) == 2 * len(page.data["rows"])


def test_thumbnails_of_a_small_run_are_in_the_page(page: Page) -> None:
    assert len(page.data["pictures"]) == len(page.data["rows"])
    head, _, content = page.data["pictures"]["0"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(content).startswith(b"\xff\xd8")


def test_the_page_asks_for_nothing_and_runs_one_script_alone(page: Page) -> None:
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}/", page.source, re.IGNORECASE)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert {address.partition(":")[0] for address in addresses} <= {"data", "#failures"}
    policy = next(
        attributes["content"] for tag, attributes in page.elements if tag == "meta" and "content" in attributes
    )
    script = page.texts["script"][1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy


def test_hostile_names_stay_text(tmp_path: Path, eb: ebp_cuda.ExcitationBackprop) -> None:
    images = list(photos(6).values())
    folder = write_folder(tmp_path / "photos", {"a.png": images[0], "b.png": images[5]})
    batch.run(folder, eb, tmp_path / "run", **SMALL)
    _rename(tmp_path / "run", HOSTILE)
    plain = Page(write_report(tmp_path / "run").page)
    assert plain.column("image") == [f"0{HOSTILE}"]
    assert f"1{HOSTILE}" in plain.texts["td"]
    assert [tag for tag, _ in plain.elements].count("script") == 2
    assert not [tag for tag, attributes in plain.elements if tag == "img" or "onerror" in attributes]


def _rename(run: Path, name: str) -> None:
    (path,) = (run / "index").glob("*.parquet")
    rows = pq.ParquetFile(path).read().to_pylist()
    rows = [{**row, "image": f"{number}{name}", "error": row["error"] and name} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, schema=index_schema()), path)


def test_thumbnails_are_the_overlays_where_there_are_any(
    tmp_path: Path, eb: ebp_cuda.ExcitationBackprop, folder: Path
) -> None:
    batch.run(folder, eb, tmp_path / "run", target="top2", overlays=True, limit=4, **SMALL)
    alone = Page(write_report(tmp_path / "run").page).data["pictures"]
    for overlay in (tmp_path / "run" / "overlays").rglob("*.png"):
        overlay.unlink()
    assert all(Page(write_report(tmp_path / "run").page).data["pictures"][key] != value for key, value in alone.items())


def test_above_200_images_thumbnails_lie_in_a_folder(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    _multiply(whole, run, 12)
    report = write_report(run, tmp_path / "many images.html")
    assert report.folder == tmp_path / "many images_files"
    page = Page(report.page)
    assert page.data["folder"] == report.folder.name
    assert len(list(report.folder.glob("*.jpg"))) == len(page.data["rows"]) == report.rows
    assert set(page.data["pictures"].values()) == {""}


def _multiply(whole: Path, run: Path, times: int) -> None:
    """A run whose shards are those of another, many times under other names."""
    for part in ("index", "shards"):
        (run / part).mkdir(parents=True)
    (run / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    for number, shard in enumerate(batch.open(whole).shards * times):
        rows = pq.ParquetFile(whole / "index" / f"{shard}.parquet").read().to_pylist()
        rows = [{**row, "image": f"{number}/{row['image']}", "shard": f"{number:05d}"} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows, schema=index_schema()), run / "index" / f"{number:05d}.parquet")
        (run / "shards" / f"{number:05d}.npz").hardlink_to(whole / "shards" / f"{shard}.npz")


def test_an_evaluation_is_summed_up_per_method(tmp_path: Path) -> None:
    rows = [
        {"image": f"{n}.png", "class": "cat", "method": method, "distance": float(n), "hit": n < reach}
        for n in range(10)
        for method, reach in (("c-mwp", 8), ("grad-cam", 3))
    ]
    with Records(tmp_path / "run", {"task": "pointing", "dataset": HOSTILE}) as records:
        records.add(rows)
    page = Page(write_report(tmp_path / "run").page)
    shares = [page.texts["td"][index] for index, text in enumerate(page.texts["td"]) if text in ("0.8", "0.3")]
    assert shares == ["0.8", "0.3"]
    assert page.data["sheets"][0]["title"] == "Farthest from the class"
    assert page.column("distance")[page.data["sheets"][0]["rows"][0]] == 9
    assert HOSTILE in page.texts["td"]


def test_ten_thousand_rows_make_a_page_of_a_few_megabytes(tmp_path: Path) -> None:
    rows = [
        {"image": f"folder/photo_{n:05d}.jpg", "method": "c-mwp", "distance": n / 7, "hit": True} for n in range(10_000)
    ]
    with Records(tmp_path / "run", {"task": "pointing"}) as records:
        records.add(rows)
    report = write_report(tmp_path / "run")
    assert report.rows == 10_000
    assert report.page.stat().st_size < 2_000_000


def test_the_command_that_made_a_run_stands_on_its_page(tmp_path: Path, folder: Path) -> None:
    from ebp_cuda.models import digits

    run = [sys.executable, "-m", "ebp_cuda"]
    made = ["batch", str(folder), "--model", str(digits.DEPLOY), "--weights", str(digits.WEIGHTS), "--limit", "3"]
    made += ["--workers", "0", "--out", str(tmp_path / "a run")]
    subprocess.run([*run, *made], check=True, capture_output=True)
    told = subprocess.run([*run, "report", str(tmp_path / "a run")], check=True, capture_output=True, text=True).stdout
    assert told == f"{tmp_path}/a run/report.html: 3 images, 3 rows\n"
    (command,) = Page(tmp_path / "a run" / "report.html").texts["pre"]
    assert command.startswith("ebp-cuda batch ")
    assert command.endswith(f"--out '{tmp_path}/a run'")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [(None, "", "no run of"), ("settings.json", "[", "cannot be read"), ("settings.json", "[]", "not the settings")],
)
def test_what_is_no_run_is_refused(tmp_path: Path, name: str | None, content: str, words: str) -> None:
    if name is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_shard_leaves_no_page_behind(tmp_path: Path, eb: ebp_cuda.ExcitationBackprop, folder: Path) -> None:
    batch.run(folder, eb, tmp_path / "run", limit=3, **SMALL)
    (shard,) = (tmp_path / "run" / "shards").glob("*.npz")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match="the shard is damaged"):
        write_report(tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
