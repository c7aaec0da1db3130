"""Changed own code: a repeated run is not blamed, and a checkpoint is not used."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from ruamel.yaml import YAML

from bdhf.cli.audit import rerun_as_json, rerun_lines
from bdhf.experiments.audit.rerun import Claimed, rerun
from bdhf.experiments.parts import user_modules
from bdhf.experiments.parts.user_modules import look_in
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run import checkpoint, checkpoint_file
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.spec.load import load_spec
from bdhf.experiments.spec.schema import Safety
from tests.experiments.specs import CHUNKS, changed
from tests.experiments.synthetic import save


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    """The entry of an honest run with an own part, and the run."""
    home = tmp_path_factory.mktemp("own")
    (home / "orr_part.py").write_text(CHUNKS)
    (home / "spec.yaml").write_text(changed(("partition: full", "partition: orr_part:Chunks")))
    look_in([str(home)])
    run = next(c.run for c in expand(load_spec(home / "spec.yaml")[0]).cells if c.arm == "full_hf")
    made = execute(run, device="cpu", safety=Safety(seconds=60))
    text = StringIO()
    YAML().dump(run.model_dump(mode="json"), text)
    claimed = Claimed(
        run_id=run.run_id, name="full_hf seed 0", spec=text.getvalue(), status=str(made.status),
        curve=made.curve.astype({"update": "Int64"}), short=lambda curve: curve,
        environment=run_environment("cpu", run.threads) | own_code(run),
    )  # fmt: skip
    yield claimed, run
    user_modules._BESIDE.folders.remove(str(home))


OTHER = {"own_code": "orr_helper 0123456789ab, orr_part ba9876543210"}


def test_the_recorded_code_is_reported_to_be_another_where_a_run_differs(claim):
    """With its modules, without blame; it still does not agree."""
    honest, _ = claim
    curve = honest.curve.assign(val_loss=1.0)
    theirs = replace(honest, curve=curve, environment={**honest.environment, **OTHER})

    again = rerun(theirs)
    *_, why, verdict = rerun_lines(again)

    assert not again.agrees
    assert again.other_code == ("orr_helper", "orr_part")
    assert "orr_part" in why
    assert "orr_helper, orr_part" in verdict
    assert not verdict.endswith(": differs")
    assert rerun_as_json(again)["other_code"] == ["orr_helper", "orr_part"]


@pytest.mark.parametrize("recorded", ["the same", "none"])
def test_a_run_that_differs_with_the_same_code_differs(claim, recorded):
    """So does a run of a report from before the code was recorded."""
    honest, _ = claim
    env = dict(honest.environment)
    if recorded == "none":
        del env["own_code"]

    again = rerun(replace(honest, curve=honest.curve.assign(val_loss=1.0), environment=env))

    assert again.other_code == ()
    assert list(rerun_lines(again))[-1].endswith(": differs")


def test_the_same_bits_are_the_same_bits_whatever_the_code(claim):
    """An added comment changes no number."""
    honest, _ = claim

    again = rerun(replace(honest, environment={**honest.environment, **OTHER}))

    assert again.agrees
    assert again.other_code == ()


def test_a_checkpoint_of_other_code_is_not_taken_up(claim, tmp_path, monkeypatch):
    """Its curve would come from two versions of the code."""
    _, run = claim
    saved = checkpoint.Checkpoint(tmp_path / "run.pt", every=1, at_least_seconds=0)
    save(checkpoint.Saver(saved, run, "cpu"), {"a": 1})
    taken = checkpoint.Saver(saved, run, "cpu").load()

    monkeypatch.setattr(checkpoint_file, "own_code", lambda run: OTHER)

    assert taken == {"a": 1}
    assert checkpoint.Saver(saved, run, "cpu").load() is None
