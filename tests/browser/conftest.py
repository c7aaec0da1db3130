"""A report on disk, and a browser without a network that notes every fault.

Playwright and axe are imported where they are used, so that other tests run without them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bdhf.records import Comparison
from tests.report.conftest import report
from tests.report.synthetic import ENTRIES, QUICKSTART, Arm, synthetic_records

#: Where the browser is, if not on the path.
CHROMIUM = "BDHF_CHROMIUM"

TRACE = "Traceback (most recent call last):\n  File training.py, line 3\nRuntimeError: boom"
ARMS = QUICKSTART | {
    "twin": Arm(tau=21.0, seconds=0.2),
    "broken": Arm(tau=60.0, status={1: ("error", TRACE), 2: ("timeout", "longer than 600 s")}),
}
COMPARISONS = (
    *ENTRIES,
    Comparison(name="twin vs block", candidate="twin", baseline="block_hf", margin=1.6),
    Comparison(name="broken vs block", candidate="broken", baseline="block_hf", margin=1.1),
    Comparison(name="loss", candidate="twin", baseline="adam", estimand="final_loss"),
)


@dataclass
class Seen:
    """An open page with its requests and errors."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def curves(self) -> list[tuple[str, str]]:
        """Axis and scale of every visible training curve."""
        shown = self.page.locator("figure[data-axis]:visible").all()
        return [(f.get_attribute("data-axis"), f.get_attribute("data-scale")) for f in shown]

    def unfold(self) -> None:
        """Unfold everything."""
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with every kind of outcome and comparison."""
    where = tmp_path_factory.mktemp("report") / "report.html"
    where.write_text(
        report(synthetic_records(ARMS, comparisons=COMPARISONS)).html, encoding="utf-8"
    )
    return where


@pytest.fixture(scope="session")
def browser():
    """Chromium of the system."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get(CHROMIUM) or shutil.which("chromium")
    if chromium is None:
        pytest.fail(f"no Chromium: `apt-get install chromium`, or set {CHROMIUM} to where it is")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def see(browser, path):
    """Open the report from disk, offline; close it at the end."""
    contexts = []

    def look(*, width: int = 1280, anchor: str = "", **settings: Any) -> Seen:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, offline=True, **settings))
        seen = Seen(contexts[-1].new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.goto(path.as_uri() + anchor)
        return seen

    yield look
    for context in contexts:
        context.close()
