"""The page: offline, the same twice, verdicts first, nothing dropped, whatever the records."""

import dataclasses
import json
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget, InputError, Records, Target
from bdhf.report import build
from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.figures.table import FIGURES
from bdhf.report.ablation.render import page
from bdhf.report.page.drawing import Evidence
from bdhf.stats.compare import compare
from bdhf.stats.text.sentences import sentence
from tests.report.conftest import report
from tests.report.reading import Page
from tests.report.synthetic import ENTRIES, QUICKSTART, TARGET, Arm, save, synthetic_records

EVIL = '<script>alert("1")</script> & <b>bold</b>'


def words(records: Records) -> Page:
    """The page without comparisons and figures, which are most of the work."""
    return Page(page(records, (), ()))


@pytest.fixture(scope="module")
def html(drawn) -> str:
    """The page of the study."""
    return drawn.html


def cases() -> Iterator[tuple[str, Records]]:
    """Records that a report must survive."""
    small = {"full_hf": Arm(tau=12.0), "block_hf": Arm(tau=9.0)}
    idle = Arm(tau=12.0, status=dict.fromkeys(range(3), (None, "")))
    few = {"seeds": 3, "updates": 60, "comparisons": ENTRIES[:1]}
    yield "no target", synthetic_records(small, **few | {"targets": (), "comparisons": ()})
    yield "an arm without a run", synthetic_records(small | {"full_hf": idle}, **few)
    yield (
        "no run at all",
        synthetic_records(dict.fromkeys(small, idle), **few | {"comparisons": ENTRIES[::2]}),
    )
    eight = {EVIL: Arm(tau=9.0), **{f"arm {i}": Arm(tau=9.0 + i) for i in range(7)}}
    yield "eight arms and one seed", synthetic_records(eight, seeds=1, updates=60, comparisons=())
    broken = synthetic_records(small, **few)
    curves = broken.curves.assign(val_loss=np.nan, test_loss=np.inf, seconds=np.nan)
    yield "no finite number", dataclasses.replace(broken, curves=curves)
    bare = broken.curves[["arm", "seed", "run_id", "update", "val_loss"]]
    yield "hardly a column", dataclasses.replace(broken, curves=bare, environments=pd.DataFrame())


CASES = dict(cases())


def provenance(html: str) -> str:
    """The text of the section "Provenance"."""
    start = html.index('<section id="provenance">')
    return Page(html[start : html.index("</section>", start)]).text


@pytest.mark.parametrize("name", CASES)
def test_every_run_is_listed_whatever_the_records(name):
    """The page lists each planned cell once, by arm, seed and run id."""
    records = CASES[name]

    rows = Page(report(records).html).table("runs")

    assert len(rows) == len(records.runs)
    for run_id, seed in zip(records.runs["run_id"], records.runs["seed"], strict=True):
        assert [f" {seed} " in row for row in rows if run_id in row] == [True]


def test_the_same_records_give_the_same_bytes(quickstart, drawn):
    """Rendering again gives the same page and the same figures."""
    assert report(quickstart) == drawn


def test_the_page_is_offline(html):
    """Nothing is loaded: addresses are references to read, or point into the page itself."""
    loading = {"src", "srcset", "data", "poster", "action", "xlink:href", "href"}
    for tag, attributes in Page(html).elements:
        for name in loading & attributes.keys():
            value = attributes[name] or ""
            assert value.startswith("#") or (tag, name) == ("a", "href"), (tag, name, value)
        assert tag not in {"link", "iframe", "object", "embed", "img"}
    assert not re.search(r"\b(fetch|import|XMLHttpRequest|WebSocket|localStorage|cookie)\b", html)
    assert not re.search(r"@import|url\((?!#)", html)


def test_verdicts_come_first(quickstart, html):
    """Every sentence and its badge stand before the first figure."""
    figure = html.index("<svg")
    before = Page(html[:figure]).text
    for result in compare(quickstart):
        assert sentence(result) in before
        assert html.index(f'<span class="badge {result.verdict}">{result.verdict}</span>') < figure


def test_sections_stand_in_their_order(html):
    """Verdicts, figures, costs, tuning, losses, runs, spec, provenance, methods."""
    headings = re.findall(r"<h2>(.*?)</h2>", html)

    assert headings == [
        "Verdicts", "Effects", "Training curves", "Survival", "Performance profiles", "Costs",
        "Tuning", "Final losses", "Every run", "Spec", "Provenance", "Methods",
    ]  # fmt: skip


@pytest.mark.parametrize("is_drawn", [True, False])
def test_the_contents_lead_to_every_section(html, quickstart, is_drawn):
    """Each link of the contents is the id of a section, in their order, under the same name."""
    text = html if is_drawn else page(quickstart, (), ())
    contents = re.findall(r'<li><a href="#([^"]+)">(.*?)</a></li>', text)
    sections = re.findall(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>', text)

    assert contents == sections
    assert len(sections) == len(re.findall("<section", text))


def test_the_order_of_arms_seeds_and_rows_changes_no_byte(quickstart, drawn):
    """Records backwards give the same page and the same figures."""
    backwards = dataclasses.replace(
        quickstart,
        arms=quickstart.arms[::-1],
        runs=quickstart.runs[::-1],
        curves=quickstart.curves.sample(frac=1, random_state=0),
        environments=quickstart.environments[::-1],
    )

    assert report(backwards) == drawn


def test_names_are_text_and_never_markup():
    """A name with HTML in it is shown as it is written, in every place where it occurs."""
    arms = {EVIL: Arm(tau=9.0), "full_hf": Arm(tau=12.0)}
    entry = ENTRIES[0].model_copy(update={"name": f"{EVIL}?", "candidate": EVIL})
    records = synthetic_records(arms, seeds=3, updates=60, comparisons=[entry], name=f"{EVIL}!")
    (result,) = compare(records)

    seen = Page(page(records, [result], [sentence(result)]))

    assert "b" not in {tag for tag, _ in seen.elements}
    assert len([tag for tag, _ in seen.elements if tag == "script"]) == 1
    for text in (f"{EVIL}!", f"{EVIL}?", sentence(result)):
        assert text in seen.text
    assert all(EVIL in row for row in seen.table("runs")[:3])


@pytest.mark.parametrize("turn", ["\u202e", "\u2066", "\u202b"])
def test_no_name_reverses_the_text_behind_it(turn):
    """A sign replaces it, in the spec too; letters of that direction stay."""
    entry = ENTRIES[0].model_copy(update={"name": f"block {turn}vs full \u05d0 \u200d"})
    records = synthetic_records(comparisons=[entry], seeds=2, updates=20, every=10)
    records = dataclasses.replace(records, spec_text=f"# {turn}\nalpha: 0.05\n", figures=())

    text = report(records).html

    assert turn not in text
    assert "block \ufffdvs full \u05d0 \u200d" in text
    assert "# \ufffd\nalpha" in text


@pytest.mark.parametrize(("last", "whole"), [(None, False), ("error", False), ("done", True)])
def test_an_incomplete_study_counts_its_runs(last, whole):
    """The top of the page has the number of finished runs if and only if a run has no outcome."""
    arms = {"full_hf": Arm(tau=9.0, status={} if whole else {2: (last, "")})}

    text = words(synthetic_records(arms, seeds=3, updates=60, comparisons=())).text

    assert ("2 of 3 runs finished" in text.rsplit("Verdicts")[-2]) == (not whole)
    assert ("runs finished" in text) == (not whole)


def test_statuses_are_counted_and_distinguished(html):
    """A diverged run is finished; a cell that has not run is counted and listed as such."""
    text = Page(html).text
    rows = Page(html).table("runs")

    assert "23 of 24 runs finished (1 not run yet)" in text
    assert [row for row in rows if " diverged " in row and " missed " in row and " NaN " in row]
    assert [row for row in rows if " not run yet " in row]


def test_a_traceback_shows_its_last_line_and_keeps_the_rest():
    """The summary of a long reason is what went wrong; the whole text is folded beneath it."""
    trace = "Traceback (most recent call last):\n  File <a.py>, line 3\nValueError: no such block"
    arms = {"full_hf": Arm(tau=9.0, status={0: ("error", trace)})}

    html = page(synthetic_records(arms, seeds=2, updates=60, comparisons=()), (), ())

    assert "<summary>ValueError: no such block</summary>" in html
    assert "File &lt;a.py&gt;, line 3" in html


def test_final_losses_are_medians_with_test_beside_validation():
    """Losses of the last evaluations; a diverged run counts with its loss before any update."""
    arms = {"full_hf": Arm(tau=9.0, status={0: ("diverged", "nan")})}
    records = synthetic_records(arms, seeds=3, updates=60, comparisons=())
    last = records.curves.groupby("seed").tail(1)["val_loss"].to_list()
    median = np.median([records.curves["val_loss"].iloc[0], *last[1:]])

    (row,) = words(records).table("losses")

    assert f"3 of 3 1 diverged {median:#.3g} " in row


def test_wall_clock_from_two_machines_is_flagged(quickstart, html):
    """Two hosts, two commits and a dirty tree each have a warning; a clean study has none."""
    environments = quickstart.environments.copy()
    environments.loc[3:, "host"] = "bench-2"
    environments.loc[5:, "commit"] = "abcdef0"
    environments.loc[7:, "dirty"] = "0123abcd"

    text = words(dataclasses.replace(quickstart, environments=environments)).text

    notices = [line for line in text.split("\n") if line.startswith("Warning:")]
    for fact in ("host: bench-2 (20 runs)", "abcdef0 (18 runs)", "16 runs"):
        assert any(fact in notice for notice in notices)
    assert "Warning:" not in provenance(html)


def test_two_targets_have_a_figure_each():
    """A survival figure per target, named after it."""
    loose = Target(metric="val_loss", below=0.05)
    records = synthetic_records(
        {"full_hf": Arm(tau=9.0)}, seeds=3, updates=60, targets=(TARGET, loose), comparisons=()
    )

    drawings = FIGURES["survival"](Evidence(records, survival_curves(records)))

    assert [d.name for d in drawings] == ["survival_val_loss_0.02", "survival_val_loss_0.05"]


def test_build_writes_everything_that_a_results_folder_lacks(tmp_path):
    """From the collected tables come comparisons.parquet, the figures and the page."""
    records = synthetic_records(QUICKSTART, updates=60)
    folder = save(records, tmp_path / "study")
    run = folder / "runs" / records.runs["run_id"].iloc[0]
    run.mkdir(parents=True)
    (run / "env.json").write_text(json.dumps({"host": "bench-9", "torch": {"cuda": None}}))

    sentences, path, _ = build(folder)

    text = Page(path.read_text(encoding="utf-8")).text
    assert path == folder / "report.html"
    assert len(sentences) == 1
    assert sentences[0] in text
    assert "a comment that stays" in text
    assert "bench-9" in text
    assert "torch.cuda" in text
    assert pd.read_parquet(folder / "comparisons.parquet")["name"].tolist() == ["block vs full"]
    views = [f"curves_{axis}{scale}" for axis in ("updates", "epochs", "products", "seconds")
             for scale in ("", "_linear", "_log_loss", "_log")]  # fmt: skip
    assert {f.stem for f in (folder / "figures").iterdir()} == {
        *views,
        "survival",
        "forest",
        "profile",
    }


def test_a_folder_without_records_is_refused(tmp_path):
    """The error names the missing file and the command that makes it."""
    with pytest.raises(InputError, match=r"no spec.yaml.*bdhf run"):
        build(tmp_path)


def test_budgets_that_differ_between_arms_are_all_listed():
    """The facts name every limit; each pair is restricted at the one of its arms."""
    records = synthetic_records(seeds=2, updates=60, comparisons=ENTRIES[:1])
    budgets = {"block_hf": Budget(updates=40), "full_hf": Budget(updates=40)}
    records = dataclasses.replace(records, budgets=budgets)

    assert "budget 40 and 60 updates" in words(records).text
    assert compare(records)[0].horizon == 40


@pytest.mark.parametrize(("count", "is_drawn"), [(24, True), (25, False)])
def test_more_arms_than_a_figure_can_show_are_left_to_the_tables(count, is_drawn):
    """From 25 arms on the page has no curves, names their file, and still has every run."""
    arms = {f"arm{index}": Arm(tau=9.0) for index in range(count)}
    made = report(synthetic_records(arms, seeds=1, updates=10, comparisons=()))

    assert bool(made.figures) is is_drawn
    assert ("curves.parquet" in Page(made.html).text) is not is_drawn
    assert len(Page(made.html).table("runs")) == count
