"""What no checkpoint holds, and whether it stays as it was when a checkpoint was tried.

A trial shows that what is not saved comes again where a run is built anew: at that time. A part may
begin to keep something later, as one that averages from some update on. So what is not saved is
looked at again before every save, and where it has changed, the next checkpoint is tried as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bdhf.experiments.run.object_state import ObjectState


@dataclass
class Unsaved:
    """What was not saved when a checkpoint was tried last, and the paths whose changes do no harm.

    These have changed before, and came again in a trial all the same: an attribute that
    `state_dict` saves, or the outputs of the last forward pass.
    """

    then: ObjectState | None = None  # None: nothing has been tried yet
    _come_again: set[str] = field(default_factory=set)

    def changed(self, now: ObjectState) -> frozenset[str]:
        """The paths at which something else stands by now that may not come again."""
        then = self.then or {}
        paths = {*then, *now} - self._come_again
        return frozenset(path for path in paths if then.get(path) != now.get(path))

    def proven(self, now: ObjectState) -> None:
        """A trial has shown that all comes again, what has changed since the last one too."""
        if self.then is not None:
            self._come_again |= self.changed(now)
        self.then = now
