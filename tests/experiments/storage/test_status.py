"""The status of an ablation, read from its folder."""

import json
import math

import pytest

from bdhf.experiments.storage.claims import Claims
from bdhf.experiments.storage.status import ablation_status, seconds_of
from bdhf.records import InputError, Status
from tests.experiments.synthetic import begun, claim, write

FAILED = (Status.ERROR, Status.OOM, Status.TIMEOUT)


@pytest.fixture
def made(tmp_path):
    """A folder that has begun, and the six cells of its plan."""
    return begun(tmp_path / "results")


def test_a_fresh_folder_has_everything_left_and_no_time(made):
    """Without a finished run the time is unknown."""
    now = ablation_status(made[0].folder)

    assert (now.done, now.diverged, now.failed, now.left) == (0, 0, 0, 6)
    assert now.seconds_left is None
    assert (now.troubles, now.skipped, now.running) == ((), (), ())


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SKIPPED])
def test_every_way_to_end_is_counted_once(made, status):
    """Done, diverged and failed are three things, and none of them is left."""
    store, cells = made
    write(store, cells[0], status)

    now = ablation_status(store.folder)

    expected = (status == Status.DONE, status == Status.DIVERGED, status in FAILED, 5)
    assert (now.done, now.diverged, now.failed, now.left) == expected
    assert len(now.troubles) == (status != Status.DONE)


def test_a_run_of_two_cells_is_one_run(tmp_path):
    """Runs are counted once; each arm has its cells; the label names both."""
    twin = ("arms:\n", "arms:\n  twin: {type: torch.Adam, lr: 3.0e-3}\n")
    store, cells = begun(tmp_path, twin)
    write(store, cells[0])

    now = ablation_status(store.folder)

    assert (now.done, now.left) == (1, 5)
    assert [arm.statuses["done"] for arm in now.arms] == [1, 1, 0, 0]
    assert now.labels[cells[0].run_id] == "twin seed 0 = adam seed 0"


def test_torn_runs_are_left_and_reported(made):
    """A torn run is to do again, and is reported."""
    store, cells = made
    (write(store, cells[0]) / "curve.parquet").unlink()

    now = ablation_status(store.folder)

    assert now.left == 6
    assert now.troubles == (
        f"adam seed 0 ({cells[0].run_id}): torn: curve.parquet: No such file or directory",
    )


def test_claims_of_planned_runs_are_running(made):
    """Claims on runs of the plan are running; a claim on another run is ignored."""
    store, cells = made
    claims = Claims(store.folder)
    held = claims.take(cells[2].run_id)
    claims.take("f" * 16)

    now = ablation_status(store.folder)
    claims.close()

    assert now.running == (held,)
    assert [arm.running for arm in now.arms] == [0, 0, 1]


def test_the_time_left_goes_by_arms_then_by_all(made):
    """An arm without a finished run is taken to be as long as the others."""
    store, cells = made
    write(store, cells[0], wall_seconds=10.0)
    write(store, cells[1], wall_seconds=40.0)

    assert ablation_status(store.folder).seconds_left == 10.0 + 40.0 + 2 * 25.0


@pytest.mark.parametrize("wall", [math.nan, math.inf, "long", None])
def test_odd_seconds_are_not_known(made, wall):
    """A wall-clock that is no number is left out."""
    store, cells = made
    write(store, cells[0], wall_seconds=wall)

    assert seconds_of(store.folder, [cells[0].run_id]) == {}
    assert ablation_status(store.folder).seconds_left is None


def test_failed_runs_tell_nothing_of_the_time(made):
    """A run that ended early for lack of memory does not shorten the estimate."""
    store, cells = made
    write(store, cells[0], Status.OOM, wall_seconds=0.1)

    assert ablation_status(store.folder).seconds_left is None


def test_everything_is_plain_data(made):
    """JSON gives it back, with the owners of claims."""
    store, cells = made
    write(store, cells[0])
    claims = Claims(store.folder)
    held = claims.take(cells[1].run_id)

    content = ablation_status(store.folder).to_json()
    claims.close()

    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["running"][0]["owner"]["pid"] == held.owner.pid
    assert content["running"][0]["label"] == "full_hf seed 0"
    assert content["arms"][0]["statuses"] == {"done": 1}


def test_a_folder_that_cannot_be_written_stands_as_well(made, monkeypatch):
    """Claims of other machines need a clock that is written; without one they count as living."""
    store, cells = made
    claim(store, cells[0], '{"host": "elsewhere", "pid": 1, "started": 2.0, "made": 3.0}')

    def read_only(**_):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", read_only)

    assert [held.owner.host for held in ablation_status(store.folder).running] == ["elsewhere"]


def test_what_is_no_results_folder_is_refused_in_words(tmp_path):
    """Neither a file nor an empty folder is an ablation."""
    (tmp_path / "file").touch()

    for folder in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"plan\.parquet"):
            ablation_status(folder)
