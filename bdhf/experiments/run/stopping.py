"""Whether a run that stops at its targets has reached them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bdhf.records import Target


class Reached:
    """Counts evaluations; a target is reached when it is met `sustain` times in a row."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._open = list(targets)
        self._held = dict.fromkeys(targets, 0)
        self._any = bool(targets)

    def after(self, row: Mapping[str, float]) -> bool:
        """Count an evaluation; True when no target is open any more. NaN never meets a target."""
        for target in list(self._open):
            hit = bool(target.met(row[target.metric]))
            self._held[target] = self._held[target] + 1 if hit else 0
            if self._held[target] >= target.sustain:
                self._open.remove(target)
        return self._any and not self._open
