"""Caveats on the environments of the runs of a comparison: differences other than the arms.

A difference within a pair may be the cause of the effect. A difference between pairs affects both
arms alike. Keys of env.json that split the runs in the same way are reported together. The code of
own parts counts module by module, where both runs of a pair have the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdhf.records import MATTERS, TIMING, Comparison
from bdhf.records.provenance.environment import hashes_of_words, shown
from bdhf.stats.observations.hardware import HARDWARE
from bdhf.stats.observations.pairs import Pairs
from bdhf.text.formatting import plain_count

#: Distinct values of one side that are listed; further ones are only counted.
_NAMED = 3


@dataclass(frozen=True)
class _Split:
    """Keys that split the runs in the same way, and their values joined, one entry a pair."""

    names: tuple[str, ...]
    candidate: tuple[str, ...]
    baseline: tuple[str, ...]

    @property
    def apart(self) -> int:
        """Pairs whose two runs differ."""
        return sum(a != b for a, b in zip(self.candidate, self.baseline, strict=True))


def surroundings(pairs: Pairs, entry: Comparison, environments: pd.DataFrame) -> tuple[str, ...]:
    """Report differences within pairs and between pairs, and runs without a known environment.

    `environments` is that of the records. For seconds the machine counts too.
    """
    sides = pairs.complete.sides
    on_clock = entry.estimand == "seconds_to_target"
    names = [n for n in (*MATTERS, *(TIMING if on_clock else ())) if n in environments]
    by_run = environments.set_index("run_id") if len(environments) else environments
    is_known = [side["run_id"].isin(by_run.index) for side in sides]
    both = is_known[0] & is_known[1]
    made_at = [by_run.reindex(side.loc[both, "run_id"]).reset_index(drop=True) for side in sides]
    splits = _splits(
        [
            pd.concat([rows[names], code], axis=1)
            for rows, code in zip(made_at, _code(made_at), strict=True)
        ]
    )
    arms = entry.candidate, entry.baseline
    return (
        *(
            text
            for arm, recorded in zip(arms, is_known, strict=True)
            for text in _unknown(arm, recorded)
        ),
        *(_within(split, arms) for split in splits if split.apart),
        *(_between(split, on_clock=on_clock) for split in splits if not split.apart),
    )


def _code(sides: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Hashes of the modules of own parts, a column each; `sides` have a row per pair, in order.

    A module of only one arm is part of what is compared: it counts as equal in the other arm.
    """
    recorded = [
        side.get("own_code", pd.Series(None, index=side.index, dtype=object)) for side in sides
    ]
    candidate, baseline = (
        pd.DataFrame(
            [hashes_of_words(text) if isinstance(text, str) else {} for text in column],
            index=column.index,
            dtype=object,
        )
        for column in recorded
    )
    filled = candidate.combine_first(baseline), baseline.combine_first(candidate)
    return [hashes.add_prefix("code of ") for hashes in filled]


def _splits(sides: Sequence[pd.DataFrame]) -> list[_Split]:
    """The keys that are not the same for all runs; `sides` have a row per pair, in order."""
    alike: dict[tuple[int, ...], list[str]] = {}
    words: dict[str, list[str]] = {}
    for name in sides[0].columns:
        words[name] = [f"{name} {shown(name, value)}" for side in sides for value in side[name]]
        codes = tuple(pd.factorize(np.array(words[name], dtype=object))[0].tolist())
        if len(set(codes)) > 1:
            alike.setdefault(codes, []).append(name)
    return [_split(names, words) for names in alike.values()]


def _split(names: Sequence[str], words: Mapping[str, Sequence[str]]) -> _Split:
    of_runs = [", ".join(row) for row in zip(*(words[name] for name in names), strict=True)]
    pairs = len(of_runs) // 2
    return _Split(tuple(names), tuple(of_runs[:pairs]), tuple(of_runs[pairs:]))


def _unknown(arm: str, recorded: pd.Series[bool]) -> tuple[str, ...]:
    k = int((~recorded).sum())
    if not k:
        return ()
    return (
        f"{k} of {plain_count(len(recorded), 'run')} of {arm} {'has' if k == 1 else 'have'} no "
        "readable env.json: hardware and versions may differ",
    )


def _within(split: _Split, arms: tuple[str, str]) -> str:
    sides = split.candidate, split.baseline
    values = [_counted(side, "run", f" of {arm}") for arm, side in zip(arms, sides, strict=True)]
    return (
        f"The arms are not the only difference within {split.apart} of "
        f"{plain_count(len(sides[0]), 'pair')}: {'; '.join(values)}"
    )


def _between(split: _Split, *, on_clock: bool) -> str:
    of_machine = {*HARDWARE, *TIMING} & set(split.names)
    mixed = ", and means of seconds pool them" if on_clock and of_machine else ""
    return (
        f"Pairs differ in more than the seed, although both runs of each agree{mixed}: "
        f"{_counted(split.candidate, 'pair')}"
    )


def _counted(values: Sequence[str], noun: str, of: str = "") -> str:
    """`torch 2.9.0 for 7 of 8 runs, torch 2.13.0 for 1`: most first, then by name."""
    ordered = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{value} for {k}" for value, k in ordered[:_NAMED]]
    listed[0] += f" of {plain_count(len(values), noun)}{of}"
    rest = len(ordered) - _NAMED
    return ", ".join([*listed, *([f"and {plain_count(rest, 'other')}"] if rest > 0 else [])])
