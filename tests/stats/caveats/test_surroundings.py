"""What else than the arms was different is told beside every verdict, by its values."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.records import MATTERS, TIMING
from bdhf.report.ablation.costs import cautions
from bdhf.stats.compare import compare, to_table
from bdhf.stats.observations.hardware import elsewhere, hardware, kinds_of
from bdhf.stats.text.latex import to_latex
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic

SECONDS = BLOCK_VS_FULL.model_copy(update={"name": "clock", "estimand": "seconds_to_target"})
FAST, SLOW = list(range(30, 38)), list(range(60, 68))

#: Two values of every key of env.json that matters.
OTHER = {
    "bdhf": ("0.2", "0.3"), "torch": ("2.9.0", "2.13.0"), "numpy": ("1.26", "2.3"),
    "cpu": ("EPYC", "Xeon"), "gpu": ("H200", ""), "device": ("cuda:0", "cpu"), "threads": (1, 2),
    "platform": ("Linux 5", "Linux 6"), "python": ("3.11", "3.12"), "cuda": ("12.8", ""),
    "tf32": (True, False), "deterministic": (True, False), "commit": ("a" * 40, "b" * 40),
    "dirty": ("c" * 12, ""), "host": ("other", "vm"), "cores": (64, 2),
}  # fmt: skip


def compared(entry, value_of, keys=tuple(OTHER)):
    """The result where the i-th of two values of a key is that of `value_of(arm, seed, key)`."""
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=(entry,))
    where = pd.DataFrame(
        {"run_id": run, **{key: OTHER[key][value_of(arm, int(seed), key)] for key in keys}}
        for run in records.runs["run_id"]
        for arm, seed in [run.split("-")]
    )
    return compare(dataclasses.replace(records, environments=where))[0]


def test_the_keys_are_those_of_a_rerun():
    """`verify --rerun` and the flags of comparisons use one list."""
    from bdhf.experiments.audit import rerun

    assert rerun.MATTERS is MATTERS
    assert set(OTHER) == {*MATTERS, *TIMING}


@pytest.mark.parametrize("key", MATTERS)
def test_every_key_that_matters_is_flagged_by_its_values(key):
    """A key with different values on both sides is a flag of a comparison of updates."""
    result = compared(BLOCK_VS_FULL, lambda arm, seed, name: name == key and arm == "full")

    (flag,) = result.flags
    assert str(result.verdict) == "better"
    assert " within 8 of 8 pairs: " in flag
    assert flag.count(f"{key} ") == 2
    assert flag.endswith(" for 8 of 8 runs of full")
    assert " for 8 of 8 runs of block; " in flag


@pytest.mark.parametrize(("entry", "told"), [(BLOCK_VS_FULL, False), (SECONDS, True)])
@pytest.mark.parametrize("key", TIMING)
def test_the_machine_matters_for_seconds_alone(entry, told, key):
    """Another host, or other cores, changes no update."""
    result = compared(entry, lambda arm, seed, name: name == key and arm == "full")

    assert bool(result.flags) == told
    assert all(f"{key} {OTHER[key][0]} for 8 of 8 runs of block" in flag for flag in result.flags)


def test_values_are_named_with_the_runs_that_have_them():
    """Keys that split the runs in the same way share one flag."""
    result = compared(
        BLOCK_VS_FULL,
        lambda arm, seed, name: (
            arm == "full" and (name in ("torch", "tf32") or (name == "commit" and seed < 3))
        ),
    )

    assert result.flags == (
        "The arms are not the only difference within 8 of 8 pairs: torch 2.9.0, tf32 yes for 8 of "
        "8 runs of block; torch 2.13.0, tf32 no for 8 of 8 runs of full",
        "The arms are not the only difference within 3 of 8 pairs: commit aaaaaaaa for 8 of 8 runs "
        "of block; commit aaaaaaaa for 5 of 8 runs of full, commit bbbbbbbb for 3",
    )


@pytest.mark.parametrize(("entry", "more"), [
    (BLOCK_VS_FULL, ""), (SECONDS, ", and means of seconds pool them"),
])  # fmt: skip
def test_a_mix_over_pairs_is_distinguished(entry, more):
    """Both runs of every pair are alike: it cannot cause the effect, but it is flagged."""
    result = compared(entry, lambda arm, seed, name: name in ("torch", "cpu") and seed < 3)

    assert result.flags == (
        f"Pairs differ in more than the seed, although both runs of each agree{more}: "
        "torch 2.9.0, cpu EPYC for 5 of 8 pairs, torch 2.13.0, cpu Xeon for 3",
    )


def test_what_is_alike_is_not_flagged():
    """Nor is one of several GPUs of a machine."""
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=(BLOCK_VS_FULL, SECONDS))
    where = records.environments.assign(gpu="H200", device=[f"cuda:{i % 4}" for i in range(16)])

    results = compare(dataclasses.replace(records, environments=where))

    assert [result.flags for result in results] == [(), ()]
    assert [result.pairs for result in results] == [8, 8]


def test_every_output_carries_the_flags():
    """The table and the LaTeX have what the result has; JSON and the page print its flags."""
    result = compared(BLOCK_VS_FULL, lambda arm, seed, name: name == "torch" and arm == "full")

    assert "torch 2.13.0 for 8 of 8 runs of full" in to_table([result])["flags"][0]
    assert "torch 2.13.0 for 8 of 8 runs of full" in to_latex([result])


@pytest.fixture
def lost():
    """Records of updates and of seconds, and their environments by run id."""
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=(BLOCK_VS_FULL, SECONDS))
    return records, records.environments


def test_runs_of_which_the_place_is_not_known_are_reported(lost):
    """A lost env.json is no evidence of equality: it is flagged, and prevents a pair of seconds."""
    records, where = lost
    torn = dataclasses.replace(
        records, environments=where[~where["run_id"].isin(["block-0", "block-5"])]
    )

    updates, seconds = compare(torn)

    assert updates.flags == (
        "2 of 8 runs of block have no readable env.json: hardware and versions may differ",
    )
    assert seconds.pairs == 6
    assert seconds.flags[0] == (
        "2 of 8 pairs are missing: 2 with hardware recorded for only one run of the pair in block, "
        "2 with hardware recorded for only one run of the pair in full"
    )


@pytest.mark.parametrize("left", [0, 8])
def test_unknown_hardware_is_one_kind_more_in_pairs_and_scaling(lost, left):
    """Two runs of unknown hardware are alike; one of them and a known one are not."""
    records, where = lost
    kept = where[where["run_id"].str[-1].astype(int) < left]
    torn = dataclasses.replace(records, environments=kept)
    kinds = kinds_of(records.runs["run_id"], kept)

    assert compare(torn)[1].pairs == 8
    assert kinds.nunique() == 1
    assert (kinds == "").all() == (not left)
    assert not elsewhere(records.runs, kept).any()
    assert any("env.json" in flag for flag in compare(torn)[1].flags) == (not left)


def test_the_costs_of_a_page_count_unknown_hardware_too(lost):
    """It is a separate kind, as in pairs."""
    records, where = lost
    torn = dataclasses.replace(records, environments=where[where["run_id"] != "block-0"])

    assert cautions(records) == ()
    assert " 2 " in cautions(torn)[0]


def test_a_file_that_names_no_hardware_is_unknown():
    """So is one without a row; an incomplete record is a separate kind."""
    where = pd.DataFrame(
        {"run_id": ["a", "b", "c"], "cpu": ["x", None, "x"], "device": ["cpu", np.nan, None]}
    )

    assert hardware(where).to_dict() == {"a": "x|cpu", "c": "x|not recorded"}
    assert kinds_of(pd.Series(["b", "d", "a"]), where).tolist() == ["", "", "x|cpu"]


def test_a_key_that_one_side_lacks_is_reported():
    """An older file without the key differs from one that has it."""
    records = synthetic({"block": FAST, "full": SLOW})
    where = records.environments.astype(object)
    where.loc[where["run_id"].str.startswith("full"), "tf32"] = None

    (result,) = compare(dataclasses.replace(records, environments=where))

    assert "tf32 not recorded for 8 of 8 runs of full" in result.flags[0]


def with_code(code_of, entry=BLOCK_VS_FULL):
    """The result where a run's own parts are of the modules `code_of(arm, seed)`, in words."""
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=(entry,))
    where = records.environments.astype(object)
    arms, seeds = zip(*(run.split("-") for run in where["run_id"]), strict=True)
    where["own_code"] = [code_of(arm, int(seed)) for arm, seed in zip(arms, seeds, strict=True)]
    return compare(dataclasses.replace(records, environments=where))[0]


def test_other_code_of_a_shared_own_part_is_flagged():
    """A problem that was edited between the arms may cause the effect."""
    result = with_code(lambda arm, seed: "lab 12ab" if arm == "block" or seed < 2 else "lab 34cd")

    assert result.flags == (
        "The arms are not the only difference within 6 of 8 pairs: code of lab 12ab for 8 of 8 "
        "runs of block; code of lab 34cd for 6 of 8 runs of full, code of lab 12ab for 2",
    )


def test_code_of_one_arm_alone_is_what_is_compared():
    """A user's own optimizer is another module than its baseline: no caveat."""
    assert (
        with_code(lambda arm, seed: "lab 12ab, opt 56ef" if arm == "full" else "lab 12ab").flags
        == ()
    )
    assert with_code(lambda arm, seed: "opt 56ef" if arm == "full" else None).flags == ()
    assert with_code(lambda arm, seed: None).flags == ()


def test_an_own_part_of_one_arm_that_changed_between_its_runs_is_reported():
    """Half of its runs are of another optimizer than the rest."""
    result = with_code(lambda arm, seed: f"opt {seed // 4}" if arm == "full" else None)

    assert result.flags == (
        "Pairs differ in more than the seed, although both runs of each agree: "
        "code of opt 0 for 4 of 8 pairs, code of opt 1 for 4",
    )
