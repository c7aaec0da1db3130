"""The page of a study in a browser: offline, without a fault, on a telephone, light and dark."""

import pytest

from bdhf.report.study.render import build_study
from tests.report.study_cases import LOST
from tests.report.synthetic_held_out import held_out_records, save_study
from tests.report.synthetic_study import ARMS, SIZES, synthetic_study

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session", params=["one", "gridded"])
def path(request, tmp_path_factory):
    """A study with two objectives and an arm that always missed, and one at five batch sizes."""
    if request.param == "one":
        objectives = ("updates_to_target", "seconds_to_target")
        records = synthetic_study(ARMS | {"adam": LOST}, objectives=objectives)
        return build_study(save_study(records, tmp_path_factory.mktemp("one"))).path
    records = synthetic_study(sizes=SIZES, trials=8)
    folder = save_study(records, tmp_path_factory.mktemp("grid"), held_out_records(records))
    return build_study(folder).path


def test_the_page_opens_offline_without_a_complaint(see, path):
    """From the disk, without a network: the only request is the page, and no error is logged."""
    seen = see()

    seen.unfold()

    assert seen.page.locator("figure svg").count() > 8
    assert seen.requests == [path.as_uri()]
    assert seen.complaints == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_never_scrolls_sideways(see, width):
    """Wide tables scroll within their own boxes, folded or not, on a telephone too."""
    seen = see(width=width)
    wide = "document.documentElement.scrollWidth"

    folded = seen.page.evaluate(wide)
    seen.unfold()

    assert folded <= width
    assert seen.page.evaluate(wide) <= width


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


def test_contents_lead_to_headings_that_nothing_covers(see):
    """Each heading lies below the contents, which stay at the top."""
    seen = see()
    for link in seen.page.locator("nav a").all():
        link.click()
        heading = seen.page.locator(f"{link.get_attribute('href')} h2").bounding_box()
        contents = seen.page.locator("nav").bounding_box()

        assert contents["height"] <= heading["y"] < 900, link.text_content()


def test_figures_keep_the_width_of_a_telephone(see):
    """On 390 pixels every figure is as wide as the text, and its height is that of its drawing."""
    seen = see(width=390)
    seen.unfold()

    for figure in seen.page.locator("figure svg").all():
        box = figure.bounding_box()
        assert 340 < box["width"] <= 390
        assert box["height"] > 60
