"""The page of a study: offline, reproducible and complete, however the trials ended."""

import dataclasses
import re

import pytest

from bdhf.records import InputError, load, load_study
from bdhf.report.ablation.tuning import per_batch_size
from bdhf.report.study.findings import findings, notices
from bdhf.report.study.held_out import final_verdicts, hold_out
from bdhf.report.study.render import build_study, evidence_of, render_study, study_page
from bdhf.report.study.tables import verdict_words
from bdhf.report.verify.verify import verify
from bdhf.stats.compare import compare
from bdhf.stats.result import Verdict
from tests.messages import naming
from tests.report.reading import Page
from tests.report.study_cases import CASES, LOST
from tests.report.synthetic_held_out import held_out_records, save_study
from tests.report.synthetic_study import (
    ARMS,
    ENTRIES,
    SIZES,
    UPDATES,
    Searched,
    label_of,
    synthetic_study,
)

EVIL = '<script>alert("1")</script> & <b>bold</b>'


def words(records) -> Page:
    """The page without figures, which are most of the work."""
    return Page(study_page(evidence_of(records)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study on disk with its ablation on held-out seeds, and its report."""
    records = synthetic_study()
    where = save_study(records, tmp_path_factory.mktemp("study"), held_out_records(records))
    return build_study(where).path.parent


@pytest.fixture(scope="module")
def html(folder) -> str:
    """Its page."""
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_every_trial_is_listed_whatever_the_study(name):
    """The tables list each trial once, with its settings and how it ended."""
    records = CASES[name]
    page = words(records)

    rows = [row for section, row in page.rows if section == "trials"]
    heads = sum(bool(arm.finished) for arm in records.study.arms)

    assert len(rows) - heads == len(records.trials)
    assert "nan" not in page.text
    assert not re.search(r"\bNone\b(?! of)", page.text)
    assert ("budget.updates" in page.text) == (name in ("all missed", "all failed"))


def test_the_same_records_give_the_same_bytes(folder, html):
    """Building again gives the same page and figures, whatever the order of rows on disk."""
    records = load_study(folder)
    backwards = dataclasses.replace(
        records, trials=records.trials[::-1], parameters=records.parameters[::-1],
        seeds=records.seeds[::-1], curves=records.curves[::-1],
    )  # fmt: skip
    held_out = hold_out(backwards)

    report = render_study(evidence_of(backwards, held_out), held_out)

    assert report.html == html
    for name, content in report.figures.items():
        assert (folder / "figures" / name).read_bytes() == content


def test_the_page_is_offline(html):
    """Nothing is loaded: addresses are references to read, or point into the page itself."""
    loading = {"src", "srcset", "data", "poster", "action", "xlink:href", "href"}
    for tag, attributes in Page(html).elements:
        for name in loading & attributes.keys():
            value = attributes[name] or ""
            assert value.startswith("#") or (tag, name) == ("a", "href"), (tag, name, value)
        assert tag not in {"link", "iframe", "object", "embed", "img"}
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_and_the_contents_lead_to_every_section(html):
    """No id occurs twice, every reference resolves, and each section is in the contents."""
    ids = re.findall(r'\bid="([^"]+)"', html)
    contents = re.findall(r'<li><a href="#([^"]+)">(.*?)</a></li>', html)
    sections = re.findall(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>', html)

    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)
    assert contents == sections
    assert [title for _, title in sections] == [
        "Findings", "Held out", "Verdict against the tuning budget", "History", "Budget curves",
        "Importances", "Parallel coordinates", "Contours", "Every trial", "Study file", "Methods",
    ]  # fmt: skip


def test_findings_name_the_best_settings_and_what_they_gain(html):
    """Value, hits and settings of the best trial, beside the settings of the spec."""
    records = synthetic_study()
    trials = records.trials[records.trials["arm"] == "adam"].set_index("trial")
    best = records.study.arms[0].best
    finding = findings(evidence_of(records))[0]

    assert f"{trials.loc[best, UPDATES]:.1f} updates to val_loss ≤ 0.02" in finding.sentence
    assert finding.hits == "2 of 2"
    assert "2 of 2 seeds" in finding.sentence
    assert finding.ratio == f"{trials.loc[best, UPDATES] / trials.loc[0, UPDATES]:.3f}×"
    assert finding.default == f"{trials.loc[0, UPDATES]:.0f}"
    assert finding.settings.startswith("lr = 0.0")
    for finding in findings(evidence_of(records)):
        assert finding.sentence in Page(html).text


def test_the_spread_is_that_of_the_trial_that_was_chosen():
    """Of several trials with the least first objective, the other objectives decide."""
    records = synthetic_study()
    adam = records.study.arms[0].model_copy(update={"least": 31.0, "largest": 37.0})
    study = records.study.model_copy(update={"arms": (adam, *records.study.arms[1:])})

    finding = findings(evidence_of(dataclasses.replace(records, study=study)))[0]

    assert finding.spread == "31.0 to 37.0"


def test_a_tuned_loss_has_no_hits():
    """There is no target: neither the findings nor the table of trials count hits."""
    records = CASES["a loss"]

    assert records.study.target is None
    assert {finding.hits for finding in findings(evidence_of(records))} == {"–"}
    assert " of 2 " not in words(records).text.split("Every trial")[1]


def test_where_trial_0_is_the_best_no_gain_is_claimed():
    """The sentence has its value once, and no ratio."""
    finding = findings(evidence_of(synthetic_study()))[2]

    assert finding.ratio == "1.00×"
    assert finding.trial == "0 of 16"
    assert "×" not in finding.sentence
    assert finding.sentence.count(finding.value) == 1


def test_a_best_trial_that_failed_is_no_finding():
    """Where every trial failed the sentence has no settings."""
    records = CASES["all failed"]
    arms = [a.model_copy(update={"best": 0}) if a.name == "full_hf" else a
            for a in records.study.arms]  # fmt: skip
    study = records.study.model_copy(update={"arms": tuple(arms)})

    finding = findings(evidence_of(dataclasses.replace(records, study=study)))[2]

    assert re.match(naming("full_hf", "16 trials", "diverged"), finding.sentence)
    assert "lr" not in finding.sentence
    assert (finding.value, finding.default, finding.ratio) == ("diverged", "diverged", "–")


def test_an_arm_that_always_missed_has_a_warning_with_remedies():
    """It has the nearest loss, and names the budget, the targets and the ranges to change."""
    records = synthetic_study({"adam": dataclasses.replace(LOST, at=1.0)}, comparisons=())
    nearest = records.seeds["final"].min()

    (notice,) = notices(evidence_of(records))

    assert re.match(naming("16 trials", "adam", "val_loss ≤ 0.02", "300 updates"), notice)
    assert f"val_loss {nearest:.4g}"[:11] in notice
    assert re.match(naming("budget.updates", "targets", "spaces.adam", "lr"), notice)
    assert notice in words(records).text


def test_a_best_setting_at_an_edge_asks_for_a_wider_range():
    """A warning per parameter names the end, the range, the cells and the key to change."""
    records = synthetic_study({"adam": Searched(at=1.0)}, sizes=SIZES[-2:], comparisons=())

    (notice,) = notices(evidence_of(records))

    cells = ("adam gradient=1000", "adam gradient=2000")
    assert re.match(naming("lr", "upper end", "0.0001 to 0.1", *cells, "spaces.adam"), notice)


def test_an_incomplete_study_counts_its_trials():
    """The top of the page has the number of trials if and only if an arm lacks some."""
    short = words(synthetic_study(ARMS | {"adam": Searched(trials=6)})).text

    assert "38 of 48 trials (adam 6 of 16)" in short.split("Findings")[1]
    assert "of 48 trials" not in words(synthetic_study()).text


def test_trials_that_did_not_end_well_give_their_reason(html):
    """Failed and pruned trials have status and reason; the default and the best are marked."""
    rows = [row for section, row in Page(html).rows if section == "trials"]

    assert any("val_loss is not finite at update 14" in row and "diverged" in row for row in rows)
    assert any("worse than the median at update 60" in row and "pruned" in row for row in rows)
    assert sum("default" in row for row in rows) == 3
    assert sum("best" in row[:40] for row in rows) == 3


def test_the_study_file_is_there_verbatim(html):
    """Comments and all."""
    assert "a comment that stays" in Page(html).text


def test_held_out_results_are_those_of_the_ablation(folder, html):
    """Each comparison has its sentence, its badge and a row; the page links to the report."""
    held_out = hold_out(load_study(folder))
    rows = [row for section, row in Page(html).rows if section == "held-out"]

    assert len(held_out.results) == len(rows) - 1 == 5
    for sentence in held_out.sentences:
        assert sentence in Page(html).text
    assert 'href="held_out/report.html"' in html
    assert (folder / "figures" / "forest.svg").exists()


def test_without_held_out_runs_the_page_names_how_to_make_them():
    """The key and the command; there is no badge of a verdict."""
    page = words(synthetic_study())

    assert re.search(naming("held_out: true", "bdhf tune"), page.text)
    assert not [tag for tag, names in page.elements if "badge" in (names.get("class") or "")]


@pytest.mark.parametrize("sizes", [(), SIZES[:2]])
def test_verdicts_on_held_out_seeds_are_those_between_tuned_arms(sizes):
    """A comparison of the study has the verdict of `NAME, tuned`, at its own batch size."""
    records = synthetic_study(sizes=sizes, trials=2)
    results = compare(held_out_records(records, seeds=4))
    verdicts = {r.name: v for r, v in zip(results, 2 * list(Verdict) + list(Verdict), strict=False)}
    results = [dataclasses.replace(r, verdict=verdicts[r.name]) for r in results]

    held_out_verdicts = final_verdicts(records, results)

    assert set(held_out_verdicts) == {entry.name for entry in records.study.comparisons}
    for entry in ENTRIES:
        for size in sizes or (0,):
            rest = f" gradient={size}" if size else ""
            assert (
                held_out_verdicts[f"{entry.name}{rest}"] is verdicts[f"{entry.name}, tuned{rest}"]
            )


def test_tuned_arms_have_a_batch_scaling_that_says_they_were_tuned(tmp_path):
    """From three batch sizes on, the lines are those of tuned arms, and the caption says so."""
    records = synthetic_study(sizes=SIZES[:3], trials=2)
    folder = save_study(records, tmp_path, held_out_records(records, seeds=3))

    drawings = {drawing.name: drawing for drawing in hold_out(load_study(folder)).drawings}

    assert set(drawings) == {"forest", "scaling", "scaling_seconds"}
    ablation = load(folder / "held_out").in_order()
    tuned = ["adam.tuned", "block_hf.tuned", "full_hf.tuned"]
    assert drawings["scaling"].caption[-1] == per_batch_size(ablation, tuned)
    assert "2 trials" in drawings["scaling"].caption[-1]
    assert "adam.tuned" in drawings["scaling"].alt
    assert "default" not in drawings["scaling"].alt


def test_the_verdict_against_the_budget_is_a_sentence(folder):
    """The number of trials from which it holds, and how many beat all of the other arm."""
    evidence = evidence_of(load_study(folder), hold_out(load_study(folder)))
    (ahead,) = [each for each in evidence.ahead if each.name == "block vs adam"]
    (text,) = [words for words in verdict_words(evidence) if words.startswith("block vs adam: ")]

    assert evidence.verdicts["block vs adam"] is Verdict.BETTER
    assert re.match(naming("better", f"{ahead.holds_from(Verdict.BETTER)} trials"), text)
    assert f"{ahead.ahead_of_all} trials of block_hf" in text
    assert text in Page(study_page(evidence)).text


def test_a_comparison_that_was_not_tuned_for_is_named():
    """A comparison of seconds is left out of the curves over trials; the page names its cost."""
    seconds = ENTRIES[0].model_copy(update={"name": "in time", "estimand": "seconds_to_target"})

    text = words(synthetic_study(comparisons=[ENTRIES[0], seconds])).text

    assert "in time (seconds of training)" in text


def test_names_are_text_and_never_markup():
    """A name with HTML in it is shown as it is written."""
    records = synthetic_study({EVIL: Searched()}, comparisons=())
    study = records.study.model_copy(update={"name": f"{EVIL}!"})

    seen = words(dataclasses.replace(records, study=study))

    assert "b" not in {tag for tag, _ in seen.elements}
    assert len([tag for tag, _ in seen.elements if tag == "script"]) == 1
    assert f"{EVIL}!" in seen.text
    assert label_of(EVIL, 0) in seen.text


def test_many_cells_have_a_table_and_no_heap():
    """Fifteen cells have a row each, no sentences at the top, and figures folded by arm."""
    records = CASES["fifteen cells"]
    evidence = evidence_of(records)
    html = render_study(evidence).html
    rows = [row for section, row in Page(html).rows if section == "findings"]

    assert len(rows) == 16
    assert findings(evidence)[0].sentence not in Page(html).text
    assert html.count('<details class="folded"') == 3 + 2
    assert html.count('<details class="folded" open') == 2


def test_a_folder_without_a_study_is_refused(tmp_path):
    """The error names the missing file and the command that makes it."""
    with pytest.raises(InputError, match=r"study.json.*bdhf tune"):
        build_study(tmp_path)


def test_an_arm_whose_default_was_the_best_is_named(folder):
    """Where no trial improved on the settings of the spec, the page names the arm."""
    records = load_study(folder)
    first = records.study.arms[0]
    trials = records.trials.copy()
    of_first = trials["arm"] == first.label
    trials.loc[of_first, "is_default"] = trials.loc[of_first, "trial"] == first.best
    changed = dataclasses.replace(records, trials=trials)
    held_out = hold_out(records)

    before, after = (
        set(re.findall("<p>.*</p>", study_page(evidence_of(version, held_out), held_out)))
        for version in (records, changed)
    )

    (line,) = after - before
    assert first.label in line


def test_commands_for_an_ablation_refuse_a_study_and_name_its_comparison(folder):
    """The folder and the page of the comparison on held-out seeds."""
    with pytest.raises(InputError, match=naming("held_out")):
        load(folder)
    with pytest.raises(InputError, match=naming("held_out/report.html")):
        verify(folder / "report.html")
