"""Caveats on tuning: a difference between two arms may be due to how well each was tuned.

A comparison compares settings, never optimizers alone. Tuning can cause a difference between a
tuned arm and an untuned one, and between arms with different numbers of trials.
"""

from __future__ import annotations

from bdhf.records import ArmTuning, Comparison, Records, Tuned, unit_of
from bdhf.text.formatting import plain_count


def is_tuned(records: Records, *arms: str) -> bool:
    """Whether each of these arms has the settings that its study chose for this setting."""
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
        "elsewhere": "was not tuned for this setting",
        "untuned": "was not tuned",
    }
    return words[arm.how] + (f" ({arm.why})" if arm.why else "")


def caveats(entry: Comparison, records: Records) -> tuple[str, ...]:
    """Report unequal tuning of two arms, shared seeds, and batch sizes without own tuning."""
    tuning, sides = records.tuning, (entry.candidate, entry.baseline)
    batch_sizes = untuned_batch_sizes(entry, records)
    if tuning is None or not all(side in tuning.arms for side in sides):
        return batch_sizes
    return (
        *_unequal(tuning, *sides),
        *_shared_seeds(tuning, *sides),
        *_for_something_else(tuning, entry),
        *batch_sizes,
    )


def untuned_batch_sizes(entry: Comparison, records: Records) -> tuple[str, ...]:
    """Report that arms at several batch sizes share one setting."""
    sizes, sides = records.values_of("batch.gradient"), (entry.candidate, entry.baseline)
    compared = {sizes[arm] for arm in sides if arm in sizes}
    if len(set(sizes.values())) < 2 or not compared or any(is_tuned(records, arm) for arm in sides):
        return ()
    return (
        f"At batch size {' and '.join(sorted(compared))} both arms have the settings of the spec, "
        "not tuned for this size: a difference may be due to the settings",
    )


def _unequal(tuning: Tuned, candidate: str, baseline: str) -> tuple[str, ...]:
    """Report how both arms were tuned, where that differs."""
    left, right = tuning.arms[candidate], tuning.arms[baseline]
    if (left.how, left.trials) == (right.how, right.trials) or (left.how == right.how != "tuned"):
        return ()
    return (
        f"{candidate} {how_in_words(left)}, {baseline} {how_in_words(right)}: a difference may be "
        "due to tuning",
    )


def _shared_seeds(tuning: Tuned, *sides: str) -> tuple[str, ...]:
    """Report settings that were chosen on seeds of the comparison itself."""
    touched = [side for side in sides if tuning.arms[side].how != "untuned"]
    if not tuning.shared_seeds or not touched:
        return ()
    seeds = plain_count(len(tuning.shared_seeds), "seed")
    return (
        f"Settings of {' and '.join(touched)} were chosen on {seeds} of this comparison, which "
        "biases it in their favour",
    )


def _for_something_else(tuning: Tuned, entry: Comparison) -> tuple[str, ...]:
    """Report settings that were chosen for another estimand than the one that is compared."""
    tuned = [s for s in (entry.candidate, entry.baseline) if tuning.arms[s].how == "tuned"]
    if not tuned or entry.estimand == tuning.objective:
        return ()
    return (
        f"Settings were chosen to minimize {unit_of(tuning.objective)}, not "
        f"{unit_of(entry.estimand)}",
    )
