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
from bdhf.tuning.sampling.visible_trials import Seen, at_place
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


def _none(given: Pruner, updates: int | None) -> BasePruner:
    return NopPruner()


def _median(given: Pruner, updates: int | None) -> BasePruner:
    return MedianPruner(n_startup_trials=given.startup, n_warmup_steps=given.warmup)


def _hyperband(given: Pruner, updates: int | None) -> BasePruner:
    """Its resource are updates, from the warm-up to the budget where that counts them."""
    return Hyperband(min_resource=max(given.warmup, 1), max_resource=updates or "auto")


#: Name -> what makes it; `updates` is the budget, None where it is on another axis.
PRUNERS: Mapping[str, Callable[[Pruner, int | None], BasePruner]] = {
    "none": _none,
    "median": _median,
    "hyperband": _hyperband,
}


def sampler_of(given: Sampler, label: str, place: int) -> BaseSampler:
    """The sampler for one trial: the `place`-th of an arm."""
    seed = derive(given.seed, f"{label}: trial {place}") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[given.type](seed, given.startup)


class ByPlace(BaseSampler):
    """Draws every trial with the sampler of its place, known as soon as the trial is there.

    Of two workers that ask at the same moment each gets another place, so they do not draw alike.
    A sampler sees what was finished when the trial was asked for, and stands.
    """

    def __init__(self, given: Sampler, label: str, look: Callable[[int], TrialSlots]) -> None:
        self._given, self._label = given, label
        self._look = look  # how the arm stands when a trial of this number is there
        self._its = sampler_of(given, label, 0)
        self._place: int | None = None
        self._finished = frozenset[int]()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take the sampler of a trial."""
        now = self._look(trial.number)
        self._place = now.place_of(trial.number)
        place = now.wanted if self._place is None else self._place
        self._its = sampler_of(self._given, self._label, place)
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
        return Seen(study, self._finished), at_place(trial, self._place)


def pruner_of(given: Pruner, updates: int | None) -> BasePruner:
    """The pruner of a study."""
    return PRUNERS[given.type](given, updates)


def part_in_words(given: Sampler | Pruner) -> str:
    """`tpe (seed 0)`: the part and what it was given.

    >>> part_in_words(Sampler(startup=8)), part_in_words(Pruner())
    ('tpe (seed 0, startup 8)', 'none')
    """
    if given.type == "none":
        return "none"
    values: dict[str, Any] = given.model_dump(exclude={"type"}, exclude_none=True)
    return f"{given.type} ({', '.join(f'{key} {value}' for key, value in values.items())})"
