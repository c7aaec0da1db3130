"""What the tuning of two arms says about their comparison: who was tuned better may win by that.

Settings are compared, never optimizers alone. A difference between a tuned arm and one that was not
can be one of tuning, and so can one between arms with other numbers of trials.
"""

from __future__ import annotations

from bdhf.records import ArmTuning, Comparison, Records, Tuned, unit_of
from bdhf.text.formatting import plain_count


def is_tuned(records: Records, *arms: str) -> bool:
    """Whether each of these arms has the settings that its study chose where the arm is run."""
    tuning = records.tuning
    return tuning is not None and all(
        arm in tuning.arms and tuning.arms[arm].how == "tuned" for arm in arms
    )


def how_in_words(arm: ArmTuning) -> str:
    """How the settings of an arm were found.

    >>> how_in_words(ArmTuning(how="changed", why="lr 0.3, tuned 0.31", trials=24))
    'was tuned and then changed (lr 0.3, tuned 0.31)'
    """
    words = {
        "tuned": f"was tuned in {plain_count(arm.trials, 'trial')}",
        "changed": "was tuned and then changed",
        "elsewhere": "was not tuned for what it is run on",
        "untuned": "was not tuned",
    }
    return words[arm.how] + (f" ({arm.why})" if arm.why else "")


def caveats(entry: Comparison, records: Records) -> tuple[str, ...]:
    """Say where one arm of a comparison was tuned and the other was not, or neither per size."""
    tuning, sides = records.tuning, (entry.candidate, entry.baseline)
    known = tuning is not None and all(side in tuning.arms for side in sides)
    return (
        *(_unequal(tuning, *sides) if tuning is not None and known else ()),
        *(_shared_seeds(tuning, *sides) if tuning is not None and known else ()),
        *(_for_something_else(tuning, entry) if tuning is not None and known else ()),
        *untuned_batch_sizes(entry, records),
    )


def untuned_batch_sizes(entry: Comparison, records: Records) -> tuple[str, ...]:
    """Say that arms run at several batch sizes have one setting for all of them."""
    sizes, sides = records.values_of("batch.gradient"), (entry.candidate, entry.baseline)
    mine = {sizes[arm] for arm in sides if arm in sizes}
    if len(set(sizes.values())) < 2 or not mine or any(is_tuned(records, arm) for arm in sides):
        return ()
    return (
        f"At batch size {' and '.join(sorted(mine))} both arms have the settings of the spec, not "
        "those tuned for it: an arm may lose by its settings",
    )


def _unequal(tuning: Tuned, candidate: str, baseline: str) -> tuple[str, ...]:
    """Say of both arms how they were tuned, where that is not the same."""
    one, other = tuning.arms[candidate], tuning.arms[baseline]
    if (one.how, one.trials) == (other.how, other.trials) or (one.how == other.how != "tuned"):
        return ()
    return (
        f"{candidate} {how_in_words(one)}, {baseline} {how_in_words(other)}: a difference may be "
        "one of tuning",
    )


def _shared_seeds(tuning: Tuned, *sides: str) -> tuple[str, ...]:
    """Say that settings were chosen on seeds of the comparison itself."""
    touched = [side for side in sides if tuning.arms[side].how != "untuned"]
    if not tuning.shared_seeds or not touched:
        return ()
    seeds = plain_count(len(tuning.shared_seeds), "seed")
    return (
        f"Settings of {' and '.join(touched)} were chosen on {seeds} of this comparison, which "
        "flatters them",
    )


def _for_something_else(tuning: Tuned, entry: Comparison) -> tuple[str, ...]:
    """Say that the settings were chosen for another quantity than the one that is compared."""
    tuned = [s for s in (entry.candidate, entry.baseline) if tuning.arms[s].how == "tuned"]
    if not tuned or entry.estimand == tuning.objective:
        return ()
    return (
        f"Settings were chosen for the fewest {unit_of(tuning.objective)}, not for "
        f"{unit_of(entry.estimand)}",
    )
