"""The policy of a page in a browser: its own script works, and no other one is run."""

import re

import pytest

from bdhf.report.study.render import build_study
from tests.report.synthetic_held_out import save_study
from tests.report.synthetic_study import ARMS, synthetic_study

pytestmark = pytest.mark.browser

#: Notes every violation, from before the page's own first line.
LISTEN = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.lineNumber}`);
});
"""

MARKER = "document.documentElement.dataset.marker = 'set'"


@pytest.fixture
def listen(browser):
    """Open a page that records violations of its policy; close it at the end."""
    contexts = []

    def look(path, anchor=""):
        contexts.append(browser.new_context(offline=True))
        page = contexts[-1].new_page()
        page.add_init_script(LISTEN)
        page.goto(path.as_uri() + anchor)
        return page

    yield look
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """The page of a study."""
    return build_study(save_study(synthetic_study(ARMS), tmp_path_factory.mktemp("study"))).path


def marker(page):
    """The trace that a script would leave."""
    return page.evaluate("document.documentElement.dataset.marker || 'none'")


def test_nothing_that_a_reader_does_violates_the_policy(listen, path):
    """Every choice, fold and link of the report, printing and reloading."""
    page = listen(path, "#pairs-2")
    for part in page.locator("summary:visible").all():
        part.click()
    for choice in page.locator("input[type=radio]").all():
        choice.check()
    for link in page.locator("nav a, .sentence a").all():
        link.click()
    page.emulate_media(media="print", color_scheme="dark")

    assert page.evaluate("window.violations") == []
    assert page.locator("figure[data-axis]:visible").count() == 1  # so the script has run
    page.reload()
    assert page.evaluate("window.violations") == []


def test_the_page_of_a_study_does_not_violate_its_policy(listen, study):
    """The same templates, the same policy."""
    page = listen(study)
    for part in page.locator("summary:visible").all():
        part.click()
    for link in page.locator("nav a").all():
        link.click()

    assert page.evaluate("window.violations") == []
    assert page.locator("figure svg").count() > 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<h2>Verdicts</h2>", f"<script>{MARKER}</script>"),
        ("</svg>", f"<script>{MARKER}</script></svg>"),
        ("<h2>Verdicts</h2>", f'<img src="none" onerror="{MARKER}">'),
        ("<h2>Verdicts</h2>", f'<details open ontoggle="{MARKER}">'),
    ],
    ids=["script", "script in a figure", "onerror", "ontoggle"],
)
def test_a_script_that_was_put_into_the_page_is_not_run(listen, path, tmp_path, old, new):
    """A violation is reported; without the policy it would run."""
    text = path.read_text(encoding="utf-8").replace(old, old + new, 1)
    guarded, bare = tmp_path / "guarded.html", tmp_path / "bare.html"
    guarded.write_text(text, encoding="utf-8")
    bare.write_text(re.sub(r"<meta http-equiv=.*>\n", "", text), encoding="utf-8")

    page, without = listen(guarded), listen(bare)
    without.wait_for_function("document.documentElement.dataset.marker")
    page.wait_for_function("window.violations.length")

    assert marker(page) == "none"
    assert marker(without) == "set"
    assert page.evaluate("window.violations")[0].startswith(("script-src", "img-src"))


def test_a_style_that_was_put_into_the_page_is_not_applied(listen, path, tmp_path):
    """Neither an element nor an attribute hides the verdicts."""
    text = path.read_text(encoding="utf-8")
    text = text.replace("</svg>", "<style>#verdicts { display: none }</style></svg>", 1)
    text = text.replace('id="verdicts"', 'id="verdicts" style="visibility: hidden"', 1)
    changed = tmp_path / "changed.html"
    changed.write_text(text, encoding="utf-8")

    page = listen(changed)

    assert page.locator("#verdicts").is_visible()
    assert len(page.evaluate("window.violations")) == 2
