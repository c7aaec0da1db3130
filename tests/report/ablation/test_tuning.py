"""The section "Tuning": how settings were chosen, and warnings."""

import json
import re
from dataclasses import replace

import pytest

from bdhf.records import ArmTuning, Tuned
from bdhf.report import build
from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.evidence import gather
from bdhf.report.ablation.figures.scaling import draw_scaling
from bdhf.report.ablation.render import page
from bdhf.report.ablation.tuning import per_batch_size, tuning_section
from bdhf.report.verify.verify import verify
from bdhf.stats.caveats.tuning import how_in_words
from tests.messages import naming
from tests.report.reading import Page
from tests.report.synthetic import save, synthetic_records
from tests.report.synthetic_grids import batches

TUNED = ArmTuning(how="tuned", trials=24, best=71.5, low=66.0, high=77.0, at_edge=("lr",))
CHANGED = ArmTuning(how="changed", why="lr 0.3, tuned 0.31", trials=24)


def tuning(arms, **changes):
    """The record of a study."""
    return Tuned(
        study="studies/x", objective="updates_to_target", target="val_loss ≤ 0.02",
        seeds=(1000, 1001), sampler="tpe, seed 0", pruner="none", arms=arms,
    ).model_copy(update=changes)  # fmt: skip


def tuned_records(**arms):
    """Records of the quickstart with the tuning of its arms; arms not named are tuned."""
    how = dict.fromkeys(("adam", "block_hf", "full_hf"), TUNED) | arms
    return replace(synthetic_records(seeds=2, updates=40, comparisons=()), tuning=tuning(how))


def section(records):
    """The text of the section, and the rows of its table."""
    html = page(records, (), ())
    start = html.index('<section id="tuning">')
    part = Page(html[start : html.index("</section>", start)])
    return part.text, part.table("tuning")


def test_a_spec_without_a_study_has_no_table_and_no_warning():
    """The section names the key that is missing."""
    text, rows = section(synthetic_records(seeds=2, updates=40, comparisons=()))

    assert "tuned_from" in text
    assert (rows, "Warning" in text) == ([], False)


def test_the_study_and_every_arm_are_reported():
    """Trials, seeds, objective, sampler and pruner; of an arm its best value with its spread."""
    text, rows = section(tuned_records())

    facts = ("studies/x", 24, 1000, 1001, "updates", "val_loss ≤ 0.02", "tpe, seed 0", "none")
    assert re.search(naming(*facts), text)
    assert "Warning" not in text
    assert [row.split() for row in rows] == [
        [arm, "tuned", "24", "71.5", "66", "to", "77", "lr"]
        for arm in ("adam", "block_hf", "full_hf")
    ]


def test_a_best_trial_that_missed_has_no_value():
    """What stands for a miss is no cost."""
    _, rows = section(tuned_records(adam=TUNED.model_copy(update={"best": 431.0, "missed": True})))

    assert "target missed" in rows[0]
    assert "431" not in rows[0]


@pytest.mark.parametrize(
    ("arms", "facts"),
    [
        ({"adam": ArmTuning(how="untuned")}, ("adam",)),
        ({"adam": CHANGED, "full_hf": CHANGED}, ("adam", "full_hf")),
        ({"adam": ArmTuning(how="elsewhere", why="gradient batch 9, tuned at 8")}, ("adam",)),
        ({"adam": TUNED.model_copy(update={"trials": 12})},
         ("adam 12 trials", "block_hf and full_hf 24 trials")),
    ],
)  # fmt: skip
def test_arms_that_were_not_tuned_alike_are_a_warning(arms, facts):
    """With the names of the arms; the table has the difference."""
    records = tuned_records(**arms).in_order()
    text, rows = section(records)

    (notice,) = tuning_section(records).notices
    assert re.search(naming(*facts), notice)
    assert f"Warning: {notice}" in text
    assert all(how.why in rows[0] for how in arms.values())


def test_an_arm_that_the_record_does_not_name_is_untuned():
    """Its row is there all the same."""
    records = replace(tuned_records(), tuning=tuning({"adam": TUNED}))

    assert [row.how for row in tuning_section(records).rows] == ["tuned", "untuned", "untuned"]
    assert len(tuning_section(replace(records, tuning=tuning({}))).rows) == 3


def test_seeds_that_are_judged_on_too_are_a_warning():
    """Settings would be judged on the seeds that chose them."""
    records = tuned_records()
    shared = replace(records, tuning=records.tuning.model_copy(update={"shared_seeds": (0, 1)}))

    assert re.search(naming("Seeds 0 and 1"), tuning_section(shared).notices[0])


def test_a_record_that_is_missing_is_a_warning():
    """It has the reason, and there is no table."""
    lost = Tuned(study="studies/x", missing="<b>gone</b>")
    text, rows = section(replace(tuned_records(), tuning=lost))

    assert re.search(naming("Warning", "studies/x") + r"[\s\S]*<b>gone</b>", text)
    assert rows == []


@pytest.fixture(scope="module")
def sized():
    """Records at several batch sizes."""
    return batches(seeds=3, updates=120)


def caption(records, arms=None, **changes):
    """The sentence on tuning below the figure of batch scaling."""
    with_tuning = replace(records, tuning=None if arms is None else tuning(arms, **changes))
    return per_batch_size(with_tuning, ["adam", "block_hf", "full_hf"])


def test_batch_scaling_states_whether_arms_were_tuned_at_each_size(sized):
    """Numbers of trials and seeds if all arms were tuned; otherwise which arms were not."""
    arms = dict.fromkeys(sized.arms, TUNED)
    changed = "adam gradient=100"

    tuned, shared = caption(sized, arms), caption(sized, arms, shared_seeds=(1000,))
    assert "24 trials" in tuned
    assert "1000 and 1001" in shared
    assert "1000" not in tuned
    assert caption(sized, arms | {changed: CHANGED}).endswith(f"{changed} {how_in_words(CHANGED)}.")
    assert "and 9 more." in caption(sized, dict.fromkeys(sized.arms, CHANGED))
    without, missing = caption(sized), caption(sized, arms, missing="it is gone")
    assert len({tuned, without, missing}) == 3
    assert "24 trials" not in without + missing


def test_arms_that_are_not_drawn_are_not_mentioned(sized):
    """Only the groups of the figure count."""
    arms = {arm: CHANGED if "adam" in arm else TUNED for arm in sized.arms}
    records = replace(sized, tuning=tuning(arms))

    assert "24 trials" in per_batch_size(records, ["block_hf", "full_hf"])
    assert "adam" in per_batch_size(records, ["adam"])


def test_the_figure_carries_the_sentence(sized):
    """At the end of its caption."""
    records = replace(sized, tuning=tuning(dict.fromkeys(sized.arms, TUNED)))
    drawing, *_ = draw_scaling(gather(records, (), survival_curves(records)))

    assert drawing.caption[-1] == per_batch_size(records, ["adam", "block_hf", "full_hf"])


def test_a_report_with_a_study_is_verified(tmp_path):
    """The page carries the record of the study, and is made again from it."""
    records = tuned_records(adam=CHANGED)
    folder = save(records, tmp_path)
    arms = [
        {"label": arm, "name": arm, "budget": {"updates": 40}, "evaluate_every": 2}
        for arm in records.arms
    ]
    index = {"records": 1, "arms": arms, "comparisons": [],
             "tuning": records.tuning.model_dump(mode="json")}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(index))

    verified = verify(build(folder).path)

    assert (verified.numbers > 500, verified.lines, verified.drawings) == (True, (), ())
    assert verified.embedded.records.tuning == records.in_order().tuning
