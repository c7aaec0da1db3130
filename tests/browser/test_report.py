"""The report in a browser: offline, without a fault, every choice and link does what it says."""

import pytest

from tests.browser.conftest import COMPARISONS

pytestmark = pytest.mark.browser

AXES = ("updates", "epochs", "products", "seconds")
SCALES = ("linear", "log_loss", "log")


def test_the_page_opens_offline_without_a_complaint(see, path):
    """From the disk, without a network: the only request is the page, and no error is logged."""
    seen = see()

    seen.unfold()
    for axis in AXES:
        seen.page.check(f"input[name=axis][value={axis}]")

    assert seen.page.locator("article.answer").count() == len(COMPARISONS)
    assert seen.requests == [path.as_uri()]
    assert seen.complaints == []


@pytest.mark.parametrize("axis", AXES)
def test_the_axis_that_is_chosen_is_the_one_that_is_seen(see, axis):
    """One figure is seen at a time: that of the axis, on the scale that was chosen before."""
    seen = see()
    before = seen.curves()

    seen.page.check(f"input[name=axis][value={axis}]")

    assert before == [("updates", "log_loss")]
    assert seen.curves() == [(axis, "log_loss")]
    assert seen.page.locator("figure[data-axis]:visible svg").bounding_box()["height"] > 200


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_that_is_chosen_is_the_one_that_is_seen(see, scale):
    """A scale that is chosen stays when the axis changes."""
    seen = see()

    seen.page.check(f"input[name=scale][value={scale}]")
    first = seen.curves()
    seen.page.check("input[name=axis][value=seconds]")

    assert first == [("updates", scale)]
    assert seen.curves() == [("seconds", scale)]


def test_the_keyboard_chooses_too(see):
    """The choices are radio buttons: the arrow keys go from one to the next."""
    seen = see()

    seen.page.focus("input[name=axis][value=updates]")
    seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("ArrowDown")

    assert seen.curves() == [("epochs", "log")]


def test_nothing_is_remembered(see):
    """A page that is loaded again begins as it did at first."""
    seen = see()
    seen.page.check("input[name=axis][value=seconds]")

    seen.page.reload()

    assert seen.curves() == [("updates", "log_loss")]
    assert seen.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_without_a_script_every_axis_is_seen(see):
    """Every choice changes the figure; each axis begins with the scale that suits it."""
    seen = see(java_script_enabled=False)

    assert [axis for axis, _ in seen.curves()] == list(AXES)
    assert seen.page.locator("form.views:visible").count() == 0


def test_print_shows_what_was_chosen(see):
    """A printed page has the chosen curve, without the choices and the contents."""
    seen = see()
    seen.page.check("input[name=axis][value=products]")
    seen.page.check("input[name=scale][value=linear]")

    seen.page.emulate_media(media="print")

    assert seen.curves() == [("products", "linear")]
    assert seen.page.locator("form.views:visible, nav:visible").count() == 0


@pytest.mark.parametrize("number", range(1, len(COMPARISONS) + 1))
def test_the_number_of_a_verdict_leads_to_its_runs(see, number):
    """From a ratio to the unfolded pairs, and from each pair to the rows of both its runs."""
    seen = see()

    seen.page.locator(f".sentence a[href='#pairs-{number}']").first.click()
    pairs = seen.page.locator(f"#pairs-{number}")
    assert is_in_view(pairs)
    assert pairs.get_attribute("open") is not None

    for side in (0, 1):
        link = pairs.locator("tbody tr").first.locator("td a").nth(side)
        row = seen.page.locator(link.get_attribute("href"))
        plain = background(row)
        link.click()
        assert is_in_view(row)
        assert background(row) != plain
        seen.page.go_back()


def test_an_address_with_an_anchor_opens_the_pairs(see):
    """A link to the pairs from another page unfolds them; so does a second click."""
    seen = see(anchor="#pairs-2")
    pairs = seen.page.locator("#pairs-2")
    opened = pairs.get_attribute("open") is not None

    pairs.locator("summary").click()
    seen.page.locator(".sentence a[href='#pairs-2']").first.click()

    assert opened
    assert is_in_view(pairs)
    assert pairs.get_attribute("open") is not None


def test_contents_lead_to_headings_that_nothing_covers(see):
    """Each heading lies below the contents, which stay at the top."""
    seen = see()
    for link in seen.page.locator("nav a").all():
        link.click()
        heading = seen.page.locator(f"{link.get_attribute('href')} h2").bounding_box()
        contents = seen.page.locator("nav").bounding_box()

        assert contents["y"] == 0
        assert contents["height"] <= heading["y"] < 900, link.text_content()


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_never_scrolls_sideways(see, width, scripts):
    """Wide tables scroll within their own boxes, folded or not, on a telephone too."""
    seen = see(width=width, java_script_enabled=scripts)
    wide = "document.documentElement.scrollWidth"

    folded = seen.page.evaluate(wide)
    seen.unfold()

    assert folded <= width
    assert seen.page.evaluate(wide) <= width
    if width == 390:
        tables = seen.page.locator(".scroll").all()
        assert any(t.evaluate("t => t.scrollWidth > t.clientWidth") for t in tables)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(see, scheme, width):
    """With everything unfolded axe-core finds no serious or critical fault, light and dark."""
    from axe_playwright_python.sync_playwright import Axe

    seen = see(width=width, color_scheme=scheme)
    seen.unfold()

    response = Axe().run(seen.page).response

    grave = [v for v in response["violations"] if v["impact"] in ("serious", "critical")]
    assert not grave, [(v["id"], v["nodes"][0]["html"][:200]) for v in grave]
    assert len(response["passes"]) > 10


def test_the_page_has_a_light_and_a_dark_face(see):
    """A reader who prefers dark gets a dark page."""
    papers = [background(see(color_scheme=s).page.locator("body")) for s in ("light", "dark")]

    assert papers == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def background(element) -> str:
    """Its colour; that of a row is its first cell's."""
    return element.evaluate(
        "e => getComputedStyle(e.tagName === 'TR' ? e.cells[0] : e).backgroundColor"
    )


def is_in_view(element) -> bool:
    """Whether its top lies within the window, below the contents."""
    return element.evaluate(
        "e => { const top = e.getBoundingClientRect().top;"
        " return top >= document.querySelector('nav').offsetHeight - 1 && top < innerHeight; }"
    )
