"""A line of means over batch sizes: its interpolated height, and its minimum.

    log Y(B) = linear in log B between two neighbouring sizes that were run

The line has no model, so it is not extrapolated. A mean with misses is a lower bound: such a size
is never called the cheapest, but it may be an alternative to the cheapest one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Fewest:
    """The batch size with the smallest mean among those at which every run hit."""

    size: float  # samples
    cost: float  # its mean, in units of the axis
    alternatives: tuple[float, ...]  # sizes with misses whose lower bound is not above it
    edge: int  # -1: the smallest size that was run, 1: the largest, 0: one between them


def between(line: pd.DataFrame, size: float) -> float:
    """The height of a line at a batch size; NaN outside of its sizes.

    `line`: columns `size` (samples, each once) and `cost` (above 0), in any order.

    >>> round(between(pd.DataFrame({"size": [100, 400], "cost": [8.0, 2.0]}), 200), 9)
    4.0
    """
    line = line.sort_values("size")
    sizes, costs = (np.log(line[name].to_numpy(dtype=float)) for name in ("size", "cost"))
    outside = float("nan")
    height = np.interp(np.log(size), sizes, costs, left=outside, right=outside)
    return float(np.exp(height))


def fewest(line: pd.DataFrame) -> Fewest | None:
    """The minimum of a line; None where runs missed at every size. Of equals, the smallest size.

    `line`: the columns `size, cost, hits, runs` of `scaling.means`, of one group.

    >>> fewest(pd.DataFrame({"size": [50, 100, 200, 400], "cost": [3.0, 8.0, 4.0, 5.0],
    ...                      "hits": [1, 2, 2, 2], "runs": 2}))
    Fewest(size=200.0, cost=4.0, alternatives=(50.0,), edge=0)
    """
    line = line.sort_values("size")
    whole = line[line["hits"] == line["runs"]]
    if whole.empty:
        return None
    size, cost = (float(whole[name].iloc[whole["cost"].argmin()]) for name in ("size", "cost"))
    bounds = line[(line["hits"] < line["runs"]) & (line["cost"] <= cost)]
    ends = float(line["size"].iloc[0]), float(line["size"].iloc[-1])
    edge = 0 if ends[0] == ends[1] else -(size == ends[0]) + (size == ends[1])
    return Fewest(size, cost, tuple(float(size) for size in bounds["size"]), edge)
