"""Parts of a plan: arms, runs, shares; and what is tried again."""

import pytest

from bdhf.experiments.engines.retry import again
from bdhf.experiments.plan.selection import Selection, Shard
from bdhf.experiments.spec.schema import Retry
from bdhf.records import InputError, Status
from tests.experiments.specs import planned

GRID = ("seeds:", "grid: {batch.gradient: [100, 200]}\nseeds:")


def arms(*only, changes=(GRID,)):
    """The labels of the cells that are meant, each once."""
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
    """An arm of the spec means all its combinations; labels may have wildcards."""
    assert arms(*only) == expected


def test_a_run_is_meant_by_the_beginning_of_its_id():
    """Four digits or more; the cells that share the run come with it."""
    plan = planned(("arms:\n", "arms:\n  twin: {type: torch.Adam, lr: 3.0e-3}\n"))
    cell = next(cell for cell in plan.cells if cell.arm == "adam")

    selected = Selection((cell.run_id[:6],)).cells(plan)

    assert {(c.arm, c.seed) for c in selected} == {("twin", 0), ("adam", 0)}


def test_a_name_that_no_cell_has_is_told():
    """With the arms there are, and the nearest."""
    with pytest.raises(InputError, match=r"--only adm: unknown arm, label or run 'adm'.*'adam'\?"):
        arms("adm")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_shares_are_a_partition_of_the_runs(count):
    """Every run is in one share; shares are stretches of the plan and differ by one run at most."""
    plan = planned()
    shares = [Selection(shard=Shard(i + 1, count)).cells(plan) for i in range(count)]

    assert [cell for share in shares for cell in share] == list(plan.cells)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_pairs_of_a_seed_stay_on_one_machine():
    """As many shares as seeds are one share a seed, so that pairs share their hardware."""
    plan = planned()

    for share in (1, 2):
        seeds = {cell.seed for cell in Selection(shard=Shard(share, 2)).cells(plan)}
        assert seeds == {share - 1}


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_what_is_no_share_is_told(text):
    """The line says how a share is written."""
    with pytest.raises(InputError, match="give i/n with i from 1 to n"):
        Shard.parse(text)


def test_the_policy_counts_attempts():
    """A run is tried once and as many times more as the policy says of how it ended."""
    rule = again(Retry(oom=2))

    assert [rule.wants({"status": "oom", "attempts": n}) for n in (1, 2, 3)] == [True, True, False]
    assert rule.wants({"status": "oom"})  # older records count none: it was tried once
    assert not rule.wants({"status": "error", "attempts": 1})


@pytest.mark.parametrize("status", [Status.DONE, Status.DIVERGED, Status.SKIPPED])
def test_an_outcome_is_never_tried_again(status):
    """Whatever is asked for."""
    assert not again(Retry(error=9, oom=9, timeout=9), "all").wants({"status": status})


def test_what_the_command_asks_for_is_tried_once_more():
    """Whatever the attempts, but not again what this command has tried itself."""
    rule = again(Retry(), "error,timeout")
    ended = {"status": "error", "attempts": 7}

    assert rule.wants(ended)
    assert not rule.wants(ended, once=False)
    assert not rule.wants({"status": "oom", "attempts": 7})
    assert again(Retry(), "all").wants({"status": "oom", "attempts": 7})


def test_what_is_no_status_is_told():
    """With those that can be tried again."""
    with pytest.raises(InputError, match="unknown status 'eror'; known: oom, error, timeout, all"):
        again(Retry(), "eror")
