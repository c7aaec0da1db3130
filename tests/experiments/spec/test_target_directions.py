"""Targets that are reached from below, and targets on the wrong side of their metric."""

import re

import pandas as pd
import pytest
from pydantic import ValidationError

from bdhf.experiments.errors import SpecError
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.stopping import Reached
from bdhf.experiments.spec.load import load_spec, variants
from bdhf.experiments.spec.schema import Safety
from bdhf.experiments.spec.yaml_source import parse
from bdhf.records import Status, Target
from tests.experiments.specs import changed
from tests.messages import naming

#: A classifier that names the better direction of its metrics, and one that does not.
MODULE = """
from dataclasses import dataclass
from bdhf.problems import MLP


@dataclass(frozen=True)
class Accurate(MLP):
    hidden: tuple[int, ...] = (12,)

    @property
    def metrics(self):
        return {"accuracy": "higher", "error": "lower"}

    def measure(self, outputs, targets):
        wrong = super().measure(outputs, targets)["error"]
        return {"accuracy": 1 - wrong, "error": wrong}


@dataclass(frozen=True)
class Silent(Accurate):
    @property
    def metrics(self):
        return ("accuracy", "error")


@dataclass(frozen=True)
class Wrong(Accurate):
    @property
    def metrics(self):
        return {"accuracy": "up", "error": "lower"}
"""
BLOCKS = ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "per_layer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the problems above, for specs."""
    folder = tmp_path_factory.mktemp("directions")
    (folder / "lab_directions.py").write_text(MODULE)
    return folder


def opened(folder, targets, problem="lab_directions:Accurate", *changes):
    """The small spec on another problem with other targets, loaded."""
    (folder / "spec.yaml").write_text(
        changed(
            ("{type: autoencoder, encoder: [784, 12, 4]}", problem),
            BLOCKS,
            ("[{metric: val_loss, below: 0.08}]", targets),
            *changes,
        )
    )
    return load_spec(folder / "spec.yaml")[0]


def faults(folder, *arguments):
    """The lines of the error of such a spec."""
    with pytest.raises(SpecError) as error:
        opened(folder, *arguments)
    return error.value.lines


WRONG = {
    "accuracy below": (
        "[{metric: val_accuracy, below: 0.7}]",
        "targets.0.below: ",
        ("val_accuracy", "higher", "`above: 0.7`"),
    ),
    "error above": (
        "[{metric: train_error, above: 0.5}]",
        "targets.0.above: ",
        ("train_error", "lower", "`below: 0.5`"),
    ),
    "loss above": (
        "[{metric: val_error, below: 0.5}, {metric: val_loss, above: 2}]",
        "targets.1.above: ",
        ("val_loss", "lower", "`below: 2`"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_target_on_the_wrong_side_is_reported_at_its_key(folder, name):
    """The line has the better side of the metric, and the correction."""
    targets, path, names = WRONG[name]

    (line,) = faults(folder, targets)

    assert re.search(rf"spec\.yaml:14:\d+: {re.escape(path)}", line)
    assert re.match(naming(*names), line.partition(path)[2])


def test_a_metric_is_better_on_one_side_only(folder):
    """If the problem names no direction, two targets of one metric must agree on one."""
    both = "[{metric: val_accuracy, above: 0.7}, {metric: train_accuracy, below: 0.9}]"

    (line,) = faults(folder, both, "lab_directions:Silent")

    assert re.match(naming("train_accuracy ≤ 0.9", "val_accuracy ≥ 0.7", "`below`"), line)
    assert opened(folder, "[{metric: val_accuracy, below: 0.7}]", "lab_directions:Silent")


def test_a_problem_names_one_of_two_directions(folder):
    """The line for anything else has the allowed values."""
    (line,) = faults(folder, "[{metric: val_loss, below: 1}]", "lab_directions:Wrong")

    assert re.match(naming("lab_directions:Wrong", "accuracy: 'up'", "'lower'", "'higher'"), line)


@pytest.mark.parametrize("targets", ["[{metric: val_loss}]", "[{metric: val_loss, sustain: 2}]"])
def test_a_target_without_a_value_says_what_to_give(targets):
    """A target needs one side."""
    with pytest.raises(SpecError, match=r"targets\.0: .*`below`.*`above`"):
        variants(parse(changed(("[{metric: val_loss, below: 0.08}]", targets))))


def test_a_target_has_one_side():
    """Both sides are two targets."""
    with pytest.raises(SpecError, match=r"targets\.0: .*`below`.*`above`"):
        variants(parse(changed(("below: 0.08", "below: 0.08, above: 0.01"))))
    with pytest.raises(ValidationError):
        Target(metric="val_loss", above=float("nan"))


def test_the_command_line_changes_the_side(folder):
    """`--set targets.0.above=…` with the other side removed."""
    opened(folder, "[{metric: val_error, below: 0.5}]")
    settings = ["targets.0.metric=val_accuracy", "targets.0.above=0.6", "targets.0.below=null"]

    variants = load_spec(folder / "spec.yaml", settings)[0]

    assert [target.label for target in variants[0].spec.targets] == ["val_accuracy ≥ 0.6"]


def test_a_run_ends_where_it_rises_to_its_target(folder):
    """From about 0.1 to 0.3: after the first update, at the first value above the target."""
    variants = opened(
        folder,
        "[{metric: val_accuracy, above: 0.3}]",
        "lab_directions:Accurate",
        ("at_budget", "at_target"),
        ("updates: 6", "updates: 60"),
    )
    run = next(cell.run for cell in expand(variants).cells if cell.arm == "adam")

    outcome = execute(run, device="cpu", safety=Safety(seconds=60))

    seen = outcome.curve["val_accuracy"]
    assert outcome.status is Status.DONE
    assert seen.iloc[-1] >= 0.3
    assert (seen.iloc[:-1] < 0.3).all()
    assert len(seen) > 1


def test_a_rising_target_enters_the_id(folder):
    """If it ends the run; another value is another run."""
    stop = ("at_budget", "at_target")
    ids = [
        expand(opened(folder, f"[{{metric: val_accuracy, above: {value}}}]",
                      "lab_directions:Accurate", *stops)).cells[0].run_id
        for value in (0.8, 0.9) for stops in ((), (stop,))
    ]  # fmt: skip

    assert ids[0] == ids[2]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(("sustain", "row"), [(1, 3), (2, 5)], ids=["first", "two in a row"])
def test_reached_rises_with_the_metric(sustain, row):
    """The value itself counts; NaN never does, and interrupts a sequence."""
    rows = [0.1, float("nan"), 0.89, 0.9, float("nan"), 0.95, 0.9, 0.2]
    reached = Reached([Target(metric="val_accuracy", above=0.9, sustain=sustain)])

    seen = [reached.after({"val_accuracy": value}) for value in rows]

    assert seen.index(True) == row + sustain - 1


def test_what_is_written_of_a_target_is_what_was_written_before():
    """No file, and no fingerprint of a study, contains the omitted side."""
    low, high = Target(metric="val_loss", below=0.08), Target(metric="val_accuracy", above=0.9)

    assert low.model_dump(mode="json") == {"metric": "val_loss", "below": 0.08, "sustain": 1}
    assert repr(low) == "Target(metric='val_loss', below=0.08, sustain=1)"
    assert high.model_dump(mode="json") == {"metric": "val_accuracy", "above": 0.9, "sustain": 1}
    assert [Target.model_validate_json(t.model_dump_json()) for t in (low, high)] == [low, high]
    assert pd.Series([low.label, high.label]).tolist() == ["val_loss ≤ 0.08", "val_accuracy ≥ 0.9"]
