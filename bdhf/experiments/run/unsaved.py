"""The state that no checkpoint has, and whether it changed since a checkpoint was tested.

A test shows that a second build recreates the unsaved state, at that time. A part may begin to keep
state later, such as an average from some update on. So the unsaved state is compared before every
save, and if it has changed, the next checkpoint is tested as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bdhf.experiments.run.object_state import ObjectState


@dataclass
class Unsaved:
    """The unsaved state at the last test of a checkpoint, and the paths whose changes are harmless.

    These have changed before, and a second build recreated them: an attribute that `state_dict`
    saves, or the outputs of the last forward pass.
    """

    then: ObjectState | None = None  # None: no test yet
    _come_again: set[str] = field(default_factory=set)

    def changed(self, now: ObjectState) -> frozenset[str]:
        """The paths that have changed and may not be recreated."""
        then = self.then or {}
        paths = {*then, *now} - self._come_again
        return frozenset(path for path in paths if then.get(path) != now.get(path))

    def proven(self, now: ObjectState) -> None:
        """Note that a test recreated everything, also what changed since the last test."""
        if self.then is not None:
            self._come_again |= self.changed(now)
        self.then = now
