"""One study with every kind of outcome, and its report, drawn once for all tests."""

import pytest

from bdhf.records import Records
from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.render import render
from bdhf.report.page.output import RenderedReport
from bdhf.stats.compare import compare
from bdhf.stats.text.sentences import sentence
from tests.report.synthetic import ENTRIES, synthetic_records


def report(records: Records) -> RenderedReport:
    """The whole report, figures and all."""
    results = compare(records)
    return render(records, results, [sentence(r) for r in results], survival_curves(records))


@pytest.fixture(scope="session")
def quickstart() -> Records:
    """Runs that hit, that miss, that diverge, and one that has not run yet."""
    return synthetic_records(updates=120, every=4, comparisons=ENTRIES[:2])


@pytest.fixture(scope="session")
def drawn(quickstart) -> RenderedReport:
    """The report of that study."""
    return report(quickstart)
