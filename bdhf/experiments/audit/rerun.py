"""Repeats runs of a report from the specs that it carries, and compares the curves.

The content of a report follows from its records, but these may be invented. A repeated run with the
same bits shows that the run was really made.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run.execute import Outcome, execute
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.spec.schema import Safety
from bdhf.optim import ALGORITHM_VERSION
from bdhf.records import DIAGNOSTICS, FAILED, MATTERS, InputError, Status, in_brief
from bdhf.records.bits import first_unlike
from bdhf.records.provenance.environment import hashes_of_words

#: Statuses that a run has again on any machine: an exception recurs, a lack of memory or of time
#: need not.
_REPEATABLE = (Status.DONE, Status.DIVERGED, Status.ERROR)

#: Wall-clock is different each time.
_IGNORED = ("seconds",)

#: Without a limit, which no spec may ask for.
_NO_LIMIT = Safety.model_construct(seconds=math.inf)


@dataclass(frozen=True)
class Claimed:
    """A run as the report states it: its spec, its end, its curve, its environment.

    `short` converts a curve to the form in which the report carries it: diagnostics may be rounded.
    """

    run_id: str
    name: str  # its cells, in words
    spec: str
    status: str
    curve: pd.DataFrame
    environment: Mapping[str, Any]
    short: Callable[[pd.DataFrame], pd.DataFrame]
    left_out: str = ""  # the parts of the environment that cannot be compared, in words


@dataclass(frozen=True)
class Rerun:
    """A repeated run: how many numbers were compared, and the differences.

    `explanations`: differences between this environment and that of the run.
    """

    run_id: str
    name: str
    status: str
    rows: int
    numbers: int
    differences: tuple[str, ...]
    explanations: tuple[str, ...]
    other_code: tuple[str, ...] = ()  # modules of own parts that differ from those of the run

    @property
    def agrees(self) -> bool:
        """Whether it ended with the same status and the same bits."""
        return not self.differences


def choose(claimed: Sequence[Claimed], count: int, seed: int) -> list[Claimed]:
    """Draw runs at random, also failed ones; the same seed draws the same runs.

    Raises InputError if no run can be repeated.
    """
    fit = [claim for claim in claimed if _is_repeatable(claim)]
    fit.sort(key=lambda claim: claim.run_id)
    if not fit:
        raise InputError(
            ["--rerun: no run to repeat: the report has no run with a spec and with an outcome or "
             "an error"]
        )  # fmt: skip
    return random.Random(seed).sample(fit, min(count, len(fit)))


def unrepeatable_runs(claimed: Sequence[Claimed]) -> Counter[str]:
    """The number of runs that cannot be repeated, and so cannot be checked, by status."""
    return Counter(claim.status for claim in claimed if not _is_repeatable(claim))


def misnamed(claimed: Sequence[Claimed]) -> list[str]:
    """Runs with the spec of another run, or with an invalid spec, in words; drawn or not."""
    lines: list[str] = []
    for claim in claimed:
        try:
            run_id = _spec(claim).run_id if claim.spec else claim.run_id
        except InputError as error:
            lines.extend(error.lines)
            continue
        if run_id != claim.run_id:
            lines.append(f"{claim.run_id} ({claim.name}): its spec is that of run {run_id}")
    return lines


def _is_repeatable(claim: Claimed) -> bool:
    return bool(claim.spec) and claim.status in _REPEATABLE


def rerun(claim: Claimed) -> Rerun:
    """Repeat a run, on its kind of device if there is one, and compare.

    Raises InputError for a spec that this bdhf cannot read.
    """
    spec = _spec(claim)
    others = tuple(_other_code(claim.environment, own_code(spec)))
    device = _device(str(claim.environment.get("device", "cpu")))
    outcome = execute(spec, device=device, safety=_NO_LIMIT)
    by_clock = spec.budget.axis == "seconds"
    differences = _ended(claim, outcome, by_clock=by_clock)
    curves = claim.curve, claim.short(outcome.curve)
    if by_clock:
        curves = _regular(curves[0], spec), _regular(curves[1], spec)
    ignored = {*_IGNORED, *_unrecorded(*curves)}
    differences += _of_curves(*curves, ignored, prefix=by_clock)
    if spec.run_id != claim.run_id:
        differences.insert(0, f"the spec is that of run {spec.run_id}, not of {claim.run_id}")
    here = run_environment("cpu", spec.threads) | {"device": device}
    rows = min(map(len, curves))
    return Rerun(
        run_id=claim.run_id,
        name=claim.name,
        status=str(outcome.status),
        rows=rows,
        numbers=rows * len([name for name in outcome.curve if name not in ignored]),
        differences=tuple(differences),
        explanations=(*map(_of_code, others), *_otherwise(spec, claim, here))
        if differences
        else (),
        other_code=others if differences else (),
    )


def _spec(claim: Claimed) -> RunSpec:
    try:
        return RunSpec.model_validate(YAML(typ="safe", pure=True).load(claim.spec))
    except (ValueError, YAMLError) as error:
        fault = f"this bdhf cannot run its spec ({in_brief(error)})"
        raise InputError([f"{claim.run_id} ({claim.name}): {fault}"]) from None


def _device(recorded: str) -> str:
    """The CPU, or a GPU if the run was on one and there is one here."""
    return "cuda:0" if recorded.startswith("cuda") and torch.cuda.is_available() else "cpu"


def _ended(claim: Claimed, outcome: Outcome, *, by_clock: bool) -> list[str]:
    """A different status, if any; the clock may end a run before it diverges."""
    has_outcome = claim.status not in FAILED and outcome.status not in FAILED
    if outcome.status == claim.status or (by_clock and has_outcome):
        return []
    why = f" ({outcome.reason})" if outcome.reason else ""
    return [f"status: {claim.status} in the report, {outcome.status}{why} here"]


def _regular(curve: pd.DataFrame, spec: RunSpec) -> pd.DataFrame:
    """The evaluations that do not depend on when the clock ended the run."""
    return curve[curve["update"] % spec.evaluate_every == 0].reset_index(drop=True)


def _unrecorded(claimed: pd.DataFrame, made: pd.DataFrame) -> list[str]:
    """Diagnostics that an older bdhf did not record, so that they cannot be compared."""
    recorded = claimed.reindex(columns=list(DIAGNOSTICS)).notna().any()
    return [
        name
        for name in DIAGNOSTICS
        if name in made and made[name].notna().any() and not recorded[name]
    ]


def _of_curves(
    claimed: pd.DataFrame, made: pd.DataFrame, ignored: Collection[str], *, prefix: bool
) -> list[str]:
    """The first value that differs; with `prefix`, only in the rows that both curves have."""
    differences: list[str] = []
    unlike = first_unlike(claimed, made, ignored=ignored)
    if unlike is not None:
        update = int(made["update"].iloc[unlike.row])
        differences.append(
            f"evaluation {unlike.row} (update {update}), {unlike.column}: {unlike.first!r} in the "
            f"report, {unlike.other!r} here"
        )
    if len(claimed) != len(made) and not prefix:
        differences.append(f"{len(claimed)} evaluations in the report, {len(made)} here")
    return differences


def _other_code(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Modules of own parts with another source than recorded; none if nothing was recorded."""
    recorded = there.get("own_code")
    if not isinstance(recorded, str):
        return []
    before, now = hashes_of_words(recorded), hashes_of_words(here.get("own_code", ""))
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _of_code(module: str) -> str:
    return f"{module}: its source here differs from that of the run"


def _otherwise(spec: RunSpec, claim: Claimed, here: Mapping[str, Any]) -> list[str]:
    """The differences between the environments that can change the bits of a curve."""
    there = claim.environment
    differences = [
        f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in MATTERS
        if there.get(name) != here.get(name) and not (claim.left_out and name not in there)
    ]
    if spec.algorithm != ALGORITHM_VERSION:
        other = f"algorithm: version {spec.algorithm} there, {ALGORITHM_VERSION} here"
        differences.insert(0, other)
    return [*differences, claim.left_out] if claim.left_out else differences
