"""The hardware of runs: seconds are compared only within one kind of hardware."""

from __future__ import annotations

import pandas as pd

from bdhf.records.provenance.environment import NOT_RECORDED, shown

#: Keys of env.json that identify the hardware of a run.
HARDWARE = ("cpu", "gpu", "device")

#: Why pairs of whole runs are excluded from a comparison of seconds.
_APART = "timed on different hardware than the other run of the pair"
_HALF_KNOWN = "with hardware recorded for only one run of the pair"


def hardware(environments: pd.DataFrame) -> pd.Series[str]:
    """The hardware of every run, as one text by run id; no entry where it was not recorded.

    >>> hardware(pd.DataFrame({"run_id": ["a"], "cpu": ["EPYC"], "device": ["cpu"]}))["a"]
    'EPYC|cpu'
    """
    recorded = [name for name in HARDWARE if name in environments]
    if not recorded:
        return pd.Series(index=pd.Index([], dtype=object), dtype=object)
    rows = [
        [shown(name, value) for name, value in zip(recorded, row, strict=True)]
        for row in environments[recorded].itertuples(index=False)
    ]
    kinds = pd.Series(map("|".join, rows), environments["run_id"], dtype=object)
    return kinds[[set(row) != {NOT_RECORDED} for row in rows]]


def kinds_of(run_ids: pd.Series[str], environments: pd.DataFrame) -> pd.Series[str]:
    """The hardware of runs, in their order; unrecorded hardware is one more kind, the text ""."""
    return run_ids.map(hardware(environments)).astype(object).fillna("")


def elsewhere(runs: pd.DataFrame, environments: pd.DataFrame) -> pd.Series[bool]:
    """Whether each run was timed on other hardware than the most common one.

    Unrecorded hardware is one more kind. Of equally common kinds the first in the alphabet counts
    as the most common one, independent of the order of the runs; unrecorded hardware comes last.
    """
    kinds = kinds_of(runs["run_id"], environments)
    counts = {str(kind): int(n) for kind, n in kinds.value_counts().items()}
    commonest = min(counts, key=lambda kind: (-counts[kind], not kind, kind), default="")
    return kinds != commonest


def on_one_hardware(
    candidate: pd.DataFrame, baseline: pd.DataFrame, environments: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mask the costs of pairs whose runs were timed on different hardware."""
    left, right = (kinds_of(side["run_id"], environments) for side in (candidate, baseline))
    both = candidate["cost"].notna() & baseline["cost"].notna()
    for which, note in (
        (both & (left != right) & (left != "") & (right != ""), _APART),
        (both & (left != right) & ((left == "") | (right == "")), _HALF_KNOWN),
    ):
        candidate, baseline = (masked(side, which, note) for side in (candidate, baseline))
    return candidate, baseline


def masked(side: pd.DataFrame, which: pd.Series[bool], note: str) -> pd.DataFrame:
    """The runs of one side, some of them with a masked, unknown cost."""
    return side.assign(
        cost=side["cost"].mask(which),
        spent=side["spent"].mask(which),
        note=side["note"].mask(which, note),
    )
