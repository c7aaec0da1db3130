"""Report trials that were made with other code of a user's own parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bdhf.experiments.plan.user_code import own_names
from bdhf.experiments.storage.stale import Present
from bdhf.records.provenance.environment import hashes_of_words
from bdhf.text.formatting import plain_count
from bdhf.tuning.outcome.trial_rows import CellTrials

#: Attribute of a trial, as in env.json: hashes of the code of its last run.
_KEY = "own_code"


def other_code(arms: Iterable[CellTrials], folder: object) -> Iterator[str]:
    """A line for every arm with such trials; they still count, and the sampler uses them."""
    present = Present()
    for arm in arms:
        changed: dict[str, str] = {}
        stale = 0
        for trial in arm.trials:
            recorded = trial.user_attrs.get(_KEY)
            if not isinstance(recorded, str):
                continue  # without own parts, or made by an older bdhf
            run = arm.cell.trial(trial.user_attrs["settings"], arm.cell.run.seed)
            others = present.changed(hashes_of_words(recorded), own_names(run))
            stale, changed = stale + bool(others), changed | others
        if stale:
            yield (
                f"{arm.cell.label}: {plain_count(stale, 'trial')} made with other code of its own "
                f"parts; changed since: {', '.join(changed.values())}. They still count; to repeat "
                f"them, give the study another `name`, or remove {folder}"
            )
