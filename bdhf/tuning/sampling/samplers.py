"""Samplers and pruners of Optuna by the names that a study gives them.

A sampler is made anew for every trial, from the seed of the study, the arm and the place of the
trial: one that is started again draws what it would have drawn, and no two trials draw the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from bdhf.experiments.run.random_streams import derive
from bdhf.tuning.sampling.brackets import Hyperband
from bdhf.tuning.sampling.trial_slots import TrialSlots
from bdhf.tuning.sampling.visible_trials import Seen, at_position
from bdhf.tuning.study.schema import Pruner, Sampler


def _tpe(seed: int, startup: int | None) -> BaseSampler:
    """Multivariate; `group` lets conditional parameters be modelled too (Bergstra et al., 2011).

    No constant liar: it would keep away from trials that run, which no sampler sees here (`Seen`).
    """
    return TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        n_startup_trials=startup or 10,
        constant_liar=False,
    )


def _gp(seed: int, startup: int | None) -> BaseSampler:
    return GPSampler(seed=seed, warn_independent_sampling=False, n_startup_trials=startup or 10)


def _cmaes(seed: int, startup: int | None) -> BaseSampler:
    """Choices, conditional parameters and a single range are drawn at random beside it."""
    return CmaEsSampler(seed=seed, warn_independent_sampling=False, n_startup_trials=startup or 1)


def _random(seed: int, startup: int | None) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Name -> what makes it.
SAMPLERS: Mapping[str, Callable[[int, int | None], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "random": _random,
}


def _none(pruner: Pruner, updates: int | None) -> BasePruner:
    return NopPruner()


def _median(pruner: Pruner, updates: int | None) -> BasePruner:
    return MedianPruner(n_startup_trials=pruner.startup, n_warmup_steps=pruner.warmup)


def _hyperband(pruner: Pruner, updates: int | None) -> BasePruner:
    """Its resource are updates, from the warm-up to the budget where that counts them."""
    return Hyperband(min_resource=max(pruner.warmup, 1), max_resource=updates or "auto")


#: Name -> what makes it; `updates` is the budget, None where it is on another axis.
PRUNERS: Mapping[str, Callable[[Pruner, int | None], BasePruner]] = {
    "none": _none,
    "median": _median,
    "hyperband": _hyperband,
}


def sampler_of(sampler: Sampler, label: str, position: int) -> BaseSampler:
    """The sampler for one trial: the `place`-th of an arm."""
    seed = derive(sampler.seed, f"{label}: trial {position}") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[sampler.type](seed, sampler.startup)


class ByPosition(BaseSampler):
    """Draws every trial with the sampler of its place, known as soon as the trial is there.

    Of two workers that ask at the same moment each gets another place, so they do not draw alike.
    A sampler sees what was finished when the trial was asked for, and stands.
    """

    def __init__(self, sampler: Sampler, label: str, look: Callable[[int], TrialSlots]) -> None:
        self._settings, self._label = sampler, label
        self._look = look  # how the arm stands when a trial of this number is there
        self._its = sampler_of(sampler, label, 0)
        self._position: int | None = None
        self._finished = frozenset[int]()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take the sampler of a trial."""
        now = self._look(trial.number)
        self._position = now.position_of(trial.number)
        position = now.wanted if self._position is None else self._position
        self._its = sampler_of(self._settings, self._label, position)
        self._finished = frozenset(finished.number for finished in now.finished)
        self._its.before_trial(*self._seen(study, trial))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Which parameters are drawn together."""
        return self._its.infer_relative_search_space(*self._seen(study, trial))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw those."""
        return self._its.sample_relative(*self._seen(study, trial), search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        """Draw one of the others."""
        seen = self._seen(study, trial)
        return self._its.sample_independent(*seen, param_name, distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Keep what the sampler wants to know of a trial."""
        self._its.after_trial(*self._seen(study, trial), state, values)

    def _seen(self, study: Study, trial: FrozenTrial) -> tuple[Study, FrozenTrial]:
        return Seen(study, self._finished), at_position(trial, self._position)


def pruner_of(pruner: Pruner, updates: int | None) -> BasePruner:
    """The pruner of a study."""
    return PRUNERS[pruner.type](pruner, updates)


def part_in_words(part: Sampler | Pruner) -> str:
    """`tpe (seed 0)`: the part and what it was given.

    >>> part_in_words(Sampler(startup=8)), part_in_words(Pruner())
    ('tpe (seed 0, startup 8)', 'none')
    """
    if part.type == "none":
        return "none"
    values: dict[str, Any] = part.model_dump(exclude={"type"}, exclude_none=True)
    return f"{part.type} ({', '.join(f'{key} {value}' for key, value in values.items())})"
