"""The preview of an ablation, as plain data."""

import json
import math

import pytest

from bdhf.experiments.ablation import Ablation
from bdhf.experiments.duration import Duration
from bdhf.records import Status
from tests.experiments.specs import SMALL, changed
from tests.experiments.synthetic import write

TWIN = ("arms:\n", "arms:\n  twin: {type: torch.Adam, lr: 3.0e-3}\n")
GRID = (
    "seeds:",
    "grid: {arms.full_hf.lr: [0.5, 0.25]}\nexclude: [{arm: adam, arms.full_hf.lr: 0.25}]\nseeds:",
)


@pytest.fixture
def opened(tmp_path):
    """Opens the small spec, changed."""

    def open_ablation(*changes):
        (tmp_path / "spec.yaml").write_text(changed(*changes) if changes else SMALL)
        return Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    return open_ablation


def preview(ablation, **seconds):
    """The preview, with these durations of arms."""
    durations = {label: Duration(float(value), "probe") for label, value in seconds.items()}
    return ablation.preview(ablation.cells, ablation.left(ablation.cells), durations)


def test_runs_that_have_ended_are_not_left(opened):
    """Each arm has the number of its runs to do; so has the whole."""
    ablation = opened()
    write(ablation.store, ablation.cells[0])
    write(ablation.store, ablation.cells[1], Status.DIVERGED)

    previewed = preview(ablation)

    assert (previewed.runs, previewed.left) == (6, 4)
    assert [arm.left for arm in previewed.arms] == [1, 1, 2]
    assert previewed.ended == {cell.run_id for cell in ablation.cells[:2]}


def test_the_time_is_that_of_different_runs(opened):
    """A run that serves two arms counts once, and more workers do not shorten a run."""
    previewed = preview(opened(TWIN), twin=10, adam=10, full_hf=20, block_hf=30)

    assert previewed.seconds_left(1) == 2 * (10 + 20 + 30)
    assert previewed.seconds_left(2) == 10 + 20 + 30
    assert previewed.seconds_left(100) == 30


def test_the_time_is_not_known_where_an_arm_is_not(opened):
    """An unfinished arm without a duration makes the sum unknown; a finished one does not."""
    ablation = opened()
    assert preview(ablation, adam=10, full_hf=20).seconds_left(1) is None
    for cell in ablation.cells:
        if cell.arm == "block_hf":
            write(ablation.store, cell)

    assert preview(ablation, adam=10, full_hf=20).seconds_left(1) == 60


def test_a_part_of_the_plan_has_the_arms_of_that_part(opened):
    """Arms that are not selected are left out."""
    ablation = opened()

    previewed = ablation.preview(ablation.selected(["adam"]), (), {"adam": "error: no"})

    assert [(arm.label, arm.seeds, arm.seconds, arm.source) for arm in previewed.arms] == [
        ("adam", (0, 1), None, "error: no")
    ]


def test_plain_data_has_cells_comparisons_by_target_and_what_is_excluded(opened):
    """The data survive a round trip through JSON."""
    second = ("below: 0.08}", "below: 0.08}, {metric: train_loss, below: 0.1, sustain: 2}")
    ablation = opened(second, GRID)
    write(ablation.store, ablation.cells[0])

    previewed = json.loads(json.dumps(preview(ablation, adam=math.pi).to_json(), allow_nan=False))

    assert [cell["ended"] for cell in previewed["cells"]] == [True] + [False] * (
        len(previewed["cells"]) - 1
    )
    assert previewed["excluded"][0]["arm"] == "adam"
    assert {entry["target"] for entry in previewed["comparisons"]} == {
        "val_loss ≤ 0.08", "train_loss ≤ 0.1 for 2 evaluations",
    }  # fmt: skip
    assert len(previewed["comparisons"]) == 2 * len(ablation.plan.comparisons)
    assert next(arm["seconds"] for arm in previewed["arms"] if arm["label"] == "adam") == math.pi
