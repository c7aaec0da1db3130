"""The section "Tuning": what is known of how settings were found, and what to beware of."""

import json
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
from tests.report.reading import Page
from tests.report.synthetic import save, synthetic_records
from tests.report.synthetic_grids import batches

TUNED = ArmTuning(how="tuned", trials=24, best=71.5, low=66.0, high=77.0, at_edge=("lr",))
CHANGED = ArmTuning(how="changed", why="lr 0.3, tuned 0.31", trials=24)


def tuning(arms, **changes):
    """What is known of a study."""
    return Tuned(
        study="studies/x", objective="updates_to_target", target="val_loss ≤ 0.02",
        seeds=(1000, 1001), sampler="tpe, seed 0", pruner="none", arms=arms,
    ).model_copy(update=changes)  # fmt: skip


def tuned_records(**arms):
    """Records of the quickstart, and how its arms were tuned; the others as they should be."""
    how = dict.fromkeys(("adam", "block_hf", "full_hf"), TUNED) | arms
    return replace(synthetic_records(seeds=2, updates=40, comparisons=()), tuning=tuning(how))


def section(records):
    """The text of the section, and the rows of its table."""
    html = page(records, (), ())
    start = html.index('<section id="tuning">')
    part = Page(html[start : html.index("</section>", start)])
    return part.text, part.table("tuning")


def test_a_spec_that_names_no_study_says_that_nothing_is_known():
    """In one sentence, without a table or a warning."""
    text, rows = section(synthetic_records(seeds=2, updates=40, comparisons=()))

    assert "The spec names no study (tuned_from), so nothing is known of how" in text
    assert (rows, "Beware" in text) == ([], False)


def test_the_study_and_every_arm_are_told():
    """Trials, seeds, objective, sampler and pruner; of an arm its best value with its spread."""
    text, rows = section(tuned_records())

    assert (
        "studies/x: 24 trials an arm on seeds 1000 and 1001, for the least updates to "
        "val_loss ≤ 0.02; sampler tpe, seed 0, pruner none." in text
    )
    assert "Beware" not in text
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
    ("arms", "said"),
    [
        ({"adam": ArmTuning(how="untuned")}, "adam was not tuned: a difference to a tuned arm"),
        ({"adam": CHANGED, "full_hf": CHANGED},
         "adam and full_hf were given other settings than those that were tuned: a difference"),
        ({"adam": ArmTuning(how="elsewhere", why="gradient batch 9, tuned at 8")},
         "adam was tuned on another problem or at another batch size: a difference"),
        ({"adam": TUNED.model_copy(update={"trials": 12})},
         "Arms were not tuned alike: adam 12 trials; block_hf and full_hf 24 trials."),
    ],
)  # fmt: skip
def test_arms_that_were_not_tuned_alike_are_a_warning(arms, said):
    """With the names of the arms; the table says what is otherwise."""
    records = tuned_records(**arms).in_order()
    text, rows = section(records)

    (notice,) = tuning_section(records).notices
    assert notice.startswith(said)
    assert f"Beware: {notice}" in text
    assert all(how.why in rows[0] for how in arms.values())


def test_an_arm_that_the_record_does_not_name_is_untuned():
    """Its row is there all the same."""
    records = replace(tuned_records(), tuning=tuning({"adam": TUNED}))

    assert [row.how for row in tuning_section(records).rows] == ["tuned", "untuned", "untuned"]
    assert len(tuning_section(replace(records, tuning=tuning({}))).rows) == 3


def test_seeds_that_are_judged_on_too_are_a_warning():
    """Settings would be judged on the runs that they were chosen for."""
    records = tuned_records()
    shared = replace(records, tuning=records.tuning.model_copy(update={"shared_seeds": (0, 1)}))

    assert (
        tuning_section(shared)
        .notices[0]
        .startswith("Seeds 0 and 1 are among those of this ablation")
    )


def test_a_record_that_is_missing_is_a_warning():
    """It says why, and no arm is said to be tuned."""
    lost = Tuned(study="studies/x", missing="<b>gone</b>")
    text, rows = section(replace(tuned_records(), tuning=lost))

    assert "Beware: The record of studies/x is missing (<b>gone</b>): nothing is known" in text
    assert rows == []


@pytest.fixture(scope="module")
def sized():
    """Records at several batch sizes."""
    return batches(seeds=3, updates=120)


def caption(records, arms=None, **changes):
    """What is said below the figure of batch scaling of these records."""
    with_tuning = replace(records, tuning=None if arms is None else tuning(arms, **changes))
    return per_batch_size(with_tuning, ["adam", "block_hf", "full_hf"])


def test_batch_scaling_says_whether_arms_were_tuned_at_each_size(sized):
    """By how many trials and on which seeds, if all were; else which ones were not, and how."""
    arms = dict.fromkeys(sized.arms, TUNED)
    changed = "adam gradient=100"

    assert caption(sized, arms) == (
        "Settings were tuned at each batch size by 24 trials an arm on other seeds."
    )
    assert "on seeds 1000 and 1001" in caption(sized, arms, shared_seeds=(1000,))
    assert caption(sized, arms | {changed: CHANGED}).endswith(
        f"{changed} was tuned and then changed (lr 0.3, tuned 0.31)."
    )
    assert "and 9 more." in caption(sized, dict.fromkeys(sized.arms, CHANGED))
    assert "were not tuned per batch size" in caption(sized)
    assert "is not known" in caption(sized, arms, missing="it is gone")


def test_arms_that_are_not_drawn_are_not_spoken_of(sized):
    """Only the groups of the figure count."""
    arms = {arm: CHANGED if "adam" in arm else TUNED for arm in sized.arms}
    records = replace(sized, tuning=tuning(arms))

    assert "by 24 trials" in per_batch_size(records, ["block_hf", "full_hf"])
    assert "adam" in per_batch_size(records, ["adam"])


def test_the_figure_carries_the_sentence(sized):
    """At the end of its caption."""
    records = replace(sized, tuning=tuning(dict.fromkeys(sized.arms, TUNED)))
    drawing, *_ = draw_scaling(gather(records, (), survival_curves(records)))

    assert drawing.caption[-1].startswith("Settings were tuned at each batch size by 24 trials")
    assert "not tuned" not in " ".join(drawing.caption)


def test_a_report_with_a_study_is_verified(tmp_path):
    """The page carries what is known of the study, and is made again from it."""
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
    assert verified.capsule.records.tuning == records.in_order().tuning
