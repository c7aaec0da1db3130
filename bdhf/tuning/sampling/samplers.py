"""Samplers and pruners of Optuna by their names in a study.

Every trial has a new sampler, made from the seed of the study, the arm and the position of the
trial: a repeated trial draws the same settings, and no two trials draw alike.
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
    """Multivariate; `group` also models conditional parameters (Bergstra et al., 2011).

    No constant liar: it avoids running trials, which no sampler sees here (`Seen`).
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
    """Choices, conditional parameters and a single range are drawn at random."""
    return CmaEsSampler(seed=seed, warn_independent_sampling=False, n_startup_trials=startup or 1)


def _random(seed: int, startup: int | None) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Name -> constructor.
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
    """The resource is updates, from the warm-up to the budget if that counts updates."""
    return Hyperband(min_resource=max(pruner.warmup, 1), max_resource=updates or "auto")


#: Name -> constructor; `updates` is the budget, None where it is on another axis.
PRUNERS: Mapping[str, Callable[[Pruner, int | None], BasePruner]] = {
    "none": _none,
    "median": _median,
    "hyperband": _hyperband,
}


def sampler_of(sampler: Sampler, label: str, position: int) -> BaseSampler:
    """The sampler for the trial at a position of an arm."""
    seed = derive(sampler.seed, f"{label}: trial {position}") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[sampler.type](seed, sampler.startup)


class ByPosition(BaseSampler):
    """Draws every trial with the sampler of its position, which is fixed when the trial exists.

    Two workers that ask at the same moment get different positions, so they do not draw alike. A
    sampler sees the counting trials that were finished when the trial was asked for.
    """

    def __init__(self, sampler: Sampler, label: str, look: Callable[[int], TrialSlots]) -> None:
        self._settings, self._label = sampler, label
        self._look = look  # the state of the arm once a trial of this number exists
        self._sampler = sampler_of(sampler, label, 0)
        self._position: int | None = None
        self._finished = frozenset[int]()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of a trial."""
        now = self._look(trial.number)
        self._position = now.position_of(trial.number)
        position = now.wanted if self._position is None else self._position
        self._sampler = sampler_of(self._settings, self._label, position)
        self._finished = frozenset(finished.number for finished in now.finished)
        self._sampler.before_trial(*self._seen(study, trial))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Select the parameters that are drawn together."""
        return self._sampler.infer_relative_search_space(*self._seen(study, trial))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw these parameters."""
        return self._sampler.sample_relative(*self._seen(study, trial), search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        """Draw one other parameter."""
        seen = self._seen(study, trial)
        return self._sampler.sample_independent(*seen, param_name, distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let the sampler store its state with a trial."""
        self._sampler.after_trial(*self._seen(study, trial), state, values)

    def _seen(self, study: Study, trial: FrozenTrial) -> tuple[Study, FrozenTrial]:
        return Seen(study, self._finished), at_position(trial, self._position)


def pruner_of(pruner: Pruner, updates: int | None) -> BasePruner:
    """The pruner of a study."""
    return PRUNERS[pruner.type](pruner, updates)


def part_in_words(part: Sampler | Pruner) -> str:
    """`tpe (seed 0)`: the part and its arguments.

    >>> part_in_words(Sampler(startup=8)), part_in_words(Pruner())
    ('tpe (seed 0, startup 8)', 'none')
    """
    if part.type == "none":
        return "none"
    values: dict[str, Any] = part.model_dump(exclude={"type"}, exclude_none=True)
    return f"{part.type} ({', '.join(f'{key} {value}' for key, value in values.items())})"
