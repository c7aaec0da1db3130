"""A study in Optuna's dashboard: the pages open and name every arm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from bdhf.tuning.storage.storage import StudyLocation
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]
pytestmark = pytest.mark.browser


class _Silent(WSGIRequestHandler):
    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def address(tmp_path: Path, quick: None) -> Iterator[str]:
    """Where a small study is shown."""
    import optuna_dashboard
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    worked(study(tmp_path, ("trials: 8", "trials: 4")), tmp_path / "out")
    storage = JournalStorage(JournalFileBackend(str(StudyLocation(tmp_path / "out").journal)))
    app = optuna_dashboard.wsgi(storage)
    with make_server("127.0.0.1", 0, app, handler_class=_Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/dashboard"
        server.shutdown()
        thread.join()


def test_the_dashboard_lists_every_study_and_opens_one(browser, address):
    """Arms are listed by name; the page of one shows its history. Nothing comes from a network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, asked, faults = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))

    page.goto(address)
    page.get_by_text("small/adam").first.wait_for()
    page.get_by_text("small/hf").first.click()
    page.locator(".js-plotly-plot").first.wait_for()

    assert faults == []
    assert all(url.startswith(address.removesuffix("/dashboard")) for url in asked)
    context.close()
