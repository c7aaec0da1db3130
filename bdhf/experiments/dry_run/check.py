"""A check that every arm can run, before anything is planned or claimed.

A valid spec may still fail in a run: dropout under a curvature, targets that are broadcast, an
optimizer that does not accept the model. A first update of every arm shows it (`first_update`), and
so does a check of the data of a user's own problem (`faults_of_data`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bdhf.experiments.dry_run.first_update import (
    NotTried,
    as_in_run,
    as_tried,
    first_update,
    model_of,
    untouched,
)
from bdhf.experiments.dry_run.passed import is_kept, keep, key_of
from bdhf.experiments.errors import Fault
from bdhf.experiments.parts.problem_fit import Misfit, NoExample, loaded, refuse_misfit
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.parts.user_parts import is_own
from bdhf.experiments.plan.expand import Cell
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.failures import classified
from bdhf.records import Status

#: Seconds for all arms of a plan together; arms that have not started by then are left out.
SECONDS = 5.0

_GO_ON = "--no-check skips this check"


@dataclass(frozen=True)
class Tryout:
    """The result of first updates: faults of the spec, and arms that were left out."""

    faults: tuple[Fault, ...]
    left_out: Mapping[str, str]  # label of an arm -> why

    def lines(self) -> list[str]:
        """The arms that were left out, one line per reason."""
        reasons = Counter(self.left_out.values())
        first = {why: label for label, why in reversed([*self.left_out.items()])}
        return [
            f"not checked: {first[why]}" + (f" and {n - 1} more" if n > 1 else "") + f": {why}"
            for why, n in reasons.items()
        ]


def try_out(cells: Iterable[Cell], names: Mapping[str, str]) -> Tryout:
    """Make a first update of every arm among these cells that has not worked before.

    `names` maps labels to arms of the spec. Only the fact that an arm works is kept.
    """
    arms: dict[str, Cell] = {}
    for cell in cells:
        if not cell.skip:
            arms.setdefault(cell.arm, cell)
    end = time.monotonic() + SECONDS
    outcomes: dict[str, Fault | str] = {}  # by key: a fault of the problem, or of the update
    faults, left_out = dict[Fault, None](), dict[str, str]()
    for label, cell in arms.items():
        run = as_tried(cell.run)
        key = key_of(run)
        if key not in outcomes:
            outcomes[key] = "" if is_kept(key) else _outcome(run, end)
            if not outcomes[key]:
                keep(key)
        outcome = outcomes[key]
        if isinstance(outcome, Fault):
            faults[_of_arm(outcome, names[label], label)] = None
        elif outcome:
            left_out[label] = outcome
    return Tryout(tuple(faults), left_out)


def faults_of_data(runs: Iterable[RunSpec]) -> tuple[Fault, ...]:
    """The faults in the data of users' own problems; each is loaded once, and freed.

    The problems of bdhf generate their data.
    """
    own = {(str(run.problem), run.dtype): run for run in runs if is_own(run.problem["type"])}
    faults = dict[Fault, None]()
    for run in own.values():
        name = run.problem["type"]
        try:
            with untouched():
                problem = problem_of(run.problem)
                data = loaded(problem)
                refuse_misfit(problem, model_of(run, problem), as_in_run(data.train, run))
        except Misfit as error:
            faults[Fault(("problem",), f"{name}: {error}; {_GO_ON}")] = None
        except Exception as error:  # a user's code may raise anything
            status, message = classified(error)
            if status is not Status.OOM:
                faults[Fault(("problem",), f"load() of {name} raises {message}; {_GO_ON}")] = None
    return tuple(faults)


def _until(end: float) -> Callable[[], None]:
    """A function that raises NotTried after the end."""

    def watch() -> None:
        if time.monotonic() > end:
            raise NotTried(f"its first update did not end within the {SECONDS:g} s of this check")

    return watch


def _outcome(run: RunSpec, end: float) -> Fault | str:
    """The result of a first update: a fault, why it was not made, or "" if it worked.

    The fault of an arm, not of its problem, has no location yet.
    """
    if time.monotonic() > end:
        return f"the {SECONDS:g} s of this check were over before it; the next check starts with it"
    try:
        with untouched():
            first_update(run, _until(end))
    except Misfit as error:
        message = f"{run.problem['type']}, on a synthetic batch: {error}; {_GO_ON}"
        return Fault(("problem",), message)
    except NotTried as why:
        return str(why)
    except NoExample as why:
        return f"{run.problem['type']}: {why}, and only a run loads its data"
    except Exception as error:  # a run may fail with anything
        status, message = classified(error)
        if status is Status.OOM:
            return "there is too little memory for this check"
        return Fault((), message)
    return ""


def _of_arm(fault: Fault, name: str, label: str) -> Fault:
    """The fault at its location in the spec, with the label of the arm."""
    if fault.path:
        return fault
    message = f"{label}: its first update, on a synthetic batch, raises {fault.message}"
    message += f"; change the arm, or the model of its problem; {_GO_ON}"
    return Fault(("arms", name), message, at_key=True)
