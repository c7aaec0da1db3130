"""How the settings of every arm were chosen: the rows and sentences of the section "Tuning"."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bdhf.records import ArmTuning, Records, Tuned, unit_of
from bdhf.report.page.formatting import listed
from bdhf.stats.caveats.tuning import how_in_words
from bdhf.stats.scaling.scaling import AXIS
from bdhf.stats.summaries.costs import label_without
from bdhf.text.formatting import NONE, counted, number

#: Arms that a sentence names; it counts the others.
_NAMED = 6

_MAY = "so a line may reflect its settings and not its optimizer."

#: The caption of figures over batch sizes where the spec names no study.
_NO_STUDY = (
    f"Settings were not tuned per batch size: each arm uses those of the spec at all sizes, {_MAY}"
)

_UNTUNED = ArmTuning(how="untuned")


@dataclass(frozen=True)
class TuningRow:
    """One arm, as text."""

    arm: str
    how: str
    trials: str
    best: str  # on the tuning seeds
    spread: str  # the smallest and largest value over these seeds
    edge: str  # settings at an edge of their range


@dataclass(frozen=True)
class TuningSection:
    """What the page states on tuning: the study, every arm, and warnings."""

    study: str
    rows: tuple[TuningRow, ...]
    notices: tuple[str, ...]


def tuning_section(records: Records) -> TuningSection | None:
    """The text of the section; None where the spec names no study."""
    tuning = records.tuning
    if tuning is None:
        return None
    if tuning.missing:
        missing = f"The record of {tuning.study} is missing ({tuning.missing})"
        return TuningSection(
            "", (), (f"{missing}, so it is unknown how the settings were chosen.",)
        )
    arms = {arm: tuning.arms.get(arm, _UNTUNED) for arm in records.arms}
    return TuningSection(
        study=_study(tuning),
        rows=tuple(_row(arm, how) for arm, how in arms.items()),
        notices=(*_otherwise(arms), *_unequal(arms), *_shared(tuning)),
    )


def per_batch_size(records: Records, groups: Collection[str]) -> str:
    """State whether the arms of these groups were tuned at each of their batch sizes."""
    tuning = records.tuning
    if tuning is None:
        return _NO_STUDY
    if tuning.missing:
        return f"It is unknown whether settings were tuned per batch size (see Tuning), {_MAY}"
    drawn = [a for a in records.values_of(AXIS) if label_without(records, a, [AXIS]) in groups]
    arms = {arm: tuning.arms.get(arm, _UNTUNED) for arm in drawn}
    others = [f"{arm} {how_in_words(how)}" for arm, how in arms.items() if how.how != "tuned"]
    if others:
        return f"Not every arm was tuned at each batch size, {_MAY} {_few(others)}."
    seeds = "on other seeds" if not tuning.shared_seeds else f"on seeds {_seeds(tuning.seeds)}"
    return f"Settings were tuned at each batch size: {_trials(arms.values())} per arm {seeds}."


def _study(tuning: Tuned) -> str:
    """The study in one sentence."""
    unit = unit_of(tuning.objective)
    what = f"{unit} to {tuning.target}" if tuning.target else unit
    return (
        f"{tuning.study}: {_trials(tuning.arms.values())} per arm on "
        f"{'seed' if len(tuning.seeds) == 1 else 'seeds'} {_seeds(tuning.seeds)}, minimising "
        f"{what}; sampler {tuning.sampler}, pruner {tuning.pruner}."
    )


def _row(arm: str, how: ArmTuning) -> TuningRow:
    best = number(how.best, tidy=True)
    has_spread = how.low is not None and not how.missed
    return TuningRow(
        arm=arm,
        how=how.how + (f": {how.why}" if how.why else ""),
        trials=f"{how.trials:,}" if how.trials else NONE,
        best="target missed" if how.missed else best,
        spread=f"{number(how.low, tidy=True)} to {number(how.high, tidy=True)}"
        if has_spread
        else "",
        edge=listed(list(how.at_edge)) or NONE,
    )


def _otherwise(arms: dict[str, ArmTuning]) -> Iterator[str]:
    """Sentences on arms without the settings that were tuned for them."""
    words = {
        "untuned": "not tuned",
        "changed": "changed after tuning",
        "elsewhere": "tuned on another problem or at another batch size",
    }
    for kind, description in words.items():
        names = [arm for arm, how in arms.items() if how.how == kind]
        if names:
            verb = "was" if len(names) == 1 else "were"
            caveat = "tuning may explain a difference from a tuned arm"
            yield f"{_few(names)} {verb} {description}: {caveat}."


def _unequal(arms: dict[str, ArmTuning]) -> Iterator[str]:
    """A sentence on arms with unequal numbers of trials."""
    tuned = {arm: how.trials for arm, how in arms.items() if how.how == "tuned"}
    if len(set(tuned.values())) > 1:
        by_trials = {
            n: _few([arm for arm, trials in tuned.items() if trials == n])
            for n in sorted(set(tuned.values()))
        }
        parts = [f"{names} {counted(n, 'trial')}" for n, names in by_trials.items()]
        yield f"Arms had unequal numbers of trials: {'; '.join(parts)}."


def _shared(tuning: Tuned) -> Iterator[str]:
    """A sentence on tuning seeds that the ablation uses too."""
    seeds = tuning.shared_seeds
    if seeds:
        which = f"Seed {_seeds(seeds)} is" if len(seeds) == 1 else f"Seeds {_seeds(seeds)} are"
        yield f"{which} also used here: settings are judged on the seeds that chose them."


def _trials(arms: Collection[ArmTuning]) -> str:
    """`24 trials`, or `12 to 24 trials`."""
    numbers = sorted({arm.trials for arm in arms if arm.trials}) or [0]
    if len(numbers) == 1:
        return counted(numbers[0], "trial")
    return f"{numbers[0]:,} to {counted(numbers[-1], 'trial')}"


def _seeds(seeds: Sequence[int]) -> str:
    """`1000 and 1001`, or `1000 to 1007`."""
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if whole else listed([str(seed) for seed in seeds])


def _few(parts: Sequence[str]) -> str:
    rest = len(parts) - _NAMED
    return listed([*parts[:_NAMED], *([f"{rest} more"] if rest > 0 else [])])
