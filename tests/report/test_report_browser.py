"""A report in a real Chromium, opened as a file: sorted, filtered, paged, with nothing asked of the network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from ebp_cuda.eval.records import Records
from ebp_cuda.report import write_report

pytestmark = pytest.mark.browser


def test_ten_thousand_rows_are_sorted_filtered_and_paged(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    rows: list[dict[str, Any]] = [
        {"image": f"<i>{n}</i>.jpg", "method": ("c-mwp", "grad-cam")[n % 2], "distance": (n * 7919) % 10_000 / 10}
        for n in range(10_000)
    ]
    with Records(tmp_path / "run", {"task": "pointing"}) as records:
        records.add(rows)
    report = write_report(tmp_path / "run")
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(report.page.as_uri())
        assert page.locator("#table tbody tr").count() == 100
        assert page.text_content("#page") == "page 1 of 100, 10000 of 10000 rows"
        assert page.text_content("#table tbody td") == "<i>0</i>.jpg"
        page.click('#table th:has-text("distance")')
        assert page.text_content("#table tbody tr:first-child td:last-child") == "0"
        page.click('#table th:has-text("distance")')
        assert page.text_content("#table tbody tr:first-child td:last-child") == "999.9"
        page.fill('input[data-column="method"]', "GRAD")
        page.fill('input[data-column="distance"]', "10..19.95")
        expected = sum(10 <= row["distance"] <= 19.95 and row["method"] == "grad-cam" for row in rows)
        assert page.text_content("#page") == f"page 1 of 1, {expected} of 10000 rows"
        page.fill('input[data-column="distance"]', "> 500")
        page.click("#after")
        assert page.text_content("#page").startswith("page 2 of ")
        (ROOT / "build" / "screenshots").mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ROOT / "build" / "screenshots" / "report.png")
        browser.close()
    assert asked == [report.page.as_uri()]
