"""Parts of a plan: arms, runs, shares; and what is tried again."""

import re

import pytest

from bdhf.experiments.engines.retry import again
from bdhf.experiments.plan.selection import Selection, Shard
from bdhf.experiments.spec.schema import Retry
from bdhf.records import InputError, Status
from tests.experiments.specs import planned

GRID = ("seeds:", "grid: {batch.gradient: [100, 200]}\nseeds:")


def arms(*only, changes=(GRID,)):
    """The labels of the selected cells, each once."""
    cells = Selection(only).cells(planned(*changes))
    return list(dict.fromkeys(cell.arm for cell in cells))


def test_nothing_given_is_everything():
    """Without a selection the cells are those of the plan, in its order."""
    plan = planned()

    assert Selection().cells(plan) == plan.cells


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (("adam",), ["adam gradient=100", "adam gradient=200"]),
        (("*=100",), ["adam gradient=100", "full_hf gradient=100", "block_hf gradient=100"]),
        (("adam gradient=100", "block_hf gradient=200"),
         ["adam gradient=100", "block_hf gradient=200"]),
    ],
)  # fmt: skip
def test_cells_are_meant_by_arm_or_by_label(only, expected):
    """The name of an arm selects all its combinations; labels may have wildcards."""
    assert arms(*only) == expected


def test_a_run_is_meant_by_the_beginning_of_its_id():
    """Four digits or more select all cells that share the run."""
    plan = planned(("arms:\n", "arms:\n  twin: {type: torch.Adam, lr: 3.0e-3}\n"))
    cell = next(cell for cell in plan.cells if cell.arm == "adam")

    selected = Selection((cell.run_id[:6],)).cells(plan)

    assert {(c.arm, c.seed) for c in selected} == {("twin", 0), ("adam", 0)}


def test_a_name_that_no_cell_has_is_reported():
    """The line has the known arms, and the nearest."""
    with pytest.raises(InputError, match=r"--only adm: .*'adm'.*\bfull_hf\b.*'adam'"):
        arms("adm")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_shares_are_a_partition_of_the_runs(count):
    """Every run is in one share; shares are contiguous and differ by at most one run."""
    plan = planned()
    shares = [Selection(shard=Shard(i + 1, count)).cells(plan) for i in range(count)]

    assert [cell for share in shares for cell in share] == list(plan.cells)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_pairs_of_a_seed_stay_on_one_machine():
    """With one share per seed, pairs run on the same hardware."""
    plan = planned()

    for share in (1, 2):
        seeds = {cell.seed for cell in Selection(shard=Shard(share, 2)).cells(plan)}
        assert seeds == {share - 1}


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_what_is_no_share_is_reported(text):
    """The line names the argument and the form of a share."""
    with pytest.raises(InputError, match=rf"--shard {re.escape(text)}: .*\bi/n\b"):
        Shard.parse(text)


def test_the_policy_counts_attempts():
    """A run is tried once, and again as often as the policy allows for its status."""
    rule = again(Retry(oom=2))

    assert [rule.wants({"status": "oom", "attempts": n}) for n in (1, 2, 3)] == [True, True, False]
    assert rule.wants({"status": "oom"})  # older records have no count: one attempt
    assert not rule.wants({"status": "error", "attempts": 1})


@pytest.mark.parametrize("status", [Status.DONE, Status.DIVERGED, Status.SKIPPED])
def test_an_outcome_is_never_tried_again(status):
    """For every policy and option."""
    assert not again(Retry(error=9, oom=9, timeout=9), "all").wants({"status": status})


def test_what_the_command_asks_for_is_tried_once_more():
    """After any number of attempts, but only once per command."""
    rule = again(Retry(), "error,timeout")
    ended = {"status": "error", "attempts": 7}

    assert rule.wants(ended)
    assert not rule.wants(ended, once=False)
    assert not rule.wants({"status": "oom", "attempts": 7})
    assert again(Retry(), "all").wants({"status": "oom", "attempts": 7})


def test_what_is_no_status_is_reported():
    """The line has the statuses that can be tried again."""
    with pytest.raises(InputError, match=r"'eror'.*oom, error, timeout, all"):
        again(Retry(), "eror")
