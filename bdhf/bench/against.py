"""Comparison of two commits on every benchmark: the verdict of `bdhf bench --against`.

Both commits are exported from git and imported by the Python that runs this, so a second commit
takes one second and needs no environment. Both use the benchmarks of the working tree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from bdhf.bench.checkout import Checkout, Commit
from bdhf.bench.process import BenchmarkProcess, Case, Failed, Skipped
from bdhf.bench.rounds import timed_ratio
from bdhf.bench.verdict import PAIRS, CaseFinding, CaseVerdict, Missing, Value, of_ratios, of_values
from bdhf.records import InputError

_T = TypeVar("_T")

#: Verdicts on a first pair of processes that more pairs must confirm.
_SUSPECT = (CaseVerdict.SLOWER, CaseVerdict.FASTER)

#: Whether a case is wanted, by its label.
Wanted = Callable[[str], bool]

#: Called before a case is measured: cases done, cases in all, the case, the pair of processes.
OnCase = Callable[[int, int, Case, int], None]


@dataclass(frozen=True)
class TimingSettings:
    """Duration and strictness of the comparison of times."""

    margin: float = 1.05  # largest ratio without a change
    budget: float = 1.5  # seconds for the rounds of one case in one pair of processes
    pairs: int = PAIRS  # of processes, all of which must show a change


@dataclass(frozen=True)
class CommitComparison:
    """The results for two commits."""

    baseline: Commit
    candidate: Commit
    versions: Mapping[str, str]
    findings: tuple[CaseFinding, ...]
    left_out: Mapping[str, int]  # reason -> number of cases left out on both sides
    settings: TimingSettings

    @property
    def regressions(self) -> tuple[CaseFinding, ...]:
        """The cases that are worse."""
        return tuple(f for f in self.findings if f.verdict.is_regression)

    @property
    def measured(self) -> int:
        """The number of cases with a value on both sides."""
        return sum(finding.is_measured for finding in self.findings)


@dataclass(frozen=True)
class Sides:
    """A process of each commit."""

    baseline: BenchmarkProcess
    candidate: BenchmarkProcess

    def refuse_broken(self, checkout: Checkout) -> None:
        """Raise InputError for a module that neither side can import: it could not be measured."""
        both = self.baseline.broken.keys() & self.candidate.broken.keys()
        if both:
            raise InputError(
                f"{checkout.benchmarks / name}: cannot be imported with either commit: "
                f"{self.candidate.broken[name]}"
                for name in sorted(both)
            )

    def tracked(self, case: Case) -> CaseFinding:
        """Take a number on both sides in parallel: it does not depend on the time."""
        with ThreadPoolExecutor(2) as pool:
            before = pool.submit(_tried, self.baseline.value, case)
            now = pool.submit(_tried, self.candidate.value, case)
            try:
                return of_values(case, before.result(), now.result())
            except BaseException:  # interrupted: do not wait for the other side
                self.baseline.kill()
                self.candidate.kill()
                raise

    def alone(self, case: Case, labels_by_side: Sequence[Set[str]]) -> CaseFinding:
        """Measure a case that only one side can import."""
        sides: list[Value] = []
        for worker, labels in zip(self.both, labels_by_side, strict=True):
            if case.label not in labels:
                file = f"{case.name.partition('.')[0]}.py"
                sides.append(Missing(f"{file}: {worker.broken.get(file, 'not there')}"))
            elif case.kind == "time":
                sides.append(_once(worker, case, _tried(worker.prepare, case)))
            else:
                sides.append(_tried(worker.value, case))
        return of_values(case, *sides)

    def timed(
        self, case: Case, so_far: CaseFinding | None, settings: TimingSettings
    ) -> CaseFinding:
        """Time both sides in turn."""
        missing = [_tried(worker.prepare, case) for worker in self.both]
        if any(missing):
            return of_values(
                case, *(_once(w, case, m) for w, m in zip(self.both, missing, strict=True))
            )
        try:
            ratio = timed_ratio(
                lambda number: self.baseline.seconds(case, number),
                lambda number: self.candidate.seconds(case, number),
                settings.budget,
            )
        except Failed as error:
            return self._failed(case, str(error))
        return of_ratios(case, (*(so_far.ratios if so_far else ()), ratio), settings.margin)

    def _failed(self, case: Case, reason: str) -> CaseFinding:
        """Find out which side failed during the timing."""
        sides: list[Value] = [_once(w, case, _tried(w.prepare, case)) for w in self.both]
        if not any(isinstance(side, Missing) for side in sides):
            sides = [Missing(f"{reason}, once, in an unknown commit")] * 2
        return of_values(case, *sides)

    @property
    def both(self) -> tuple[BenchmarkProcess, BenchmarkProcess]:
        """The baseline and the candidate."""
        return self.baseline, self.candidate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.baseline.close()
        self.candidate.close()


def compare_commits(
    checkout: Checkout,
    baseline: Commit,
    candidate: Commit,
    wanted: Wanted,
    settings: TimingSettings = TimingSettings(),
    observe: OnCase = lambda *_: None,
) -> CommitComparison:
    """Compare two commits on the wanted benchmarks.

    A case whose times differ in the first pair of processes is timed again in new pairs, until one
    pair shows no difference. Raises InputError where a commit cannot be measured at all.
    """
    with _exported(checkout, baseline, candidate) as trees:
        with _sides(checkout, trees) as sides:
            sides.refuse_broken(checkout)
            versions = sides.candidate.versions
            cases = [case for case in _all_cases(sides) if wanted(case.label)]
            findings = dict(_first(sides, cases, settings, observe))
        for turn in range(1, settings.pairs):
            again = [case for case, finding in findings.items() if finding.verdict in _SUSPECT]
            if not again:
                break
            with _sides(checkout, trees, swapped=bool(turn % 2)) as sides:
                for done, case in enumerate(again):
                    observe(done, len(again), case, turn + 1)
                    findings[case] = sides.timed(case, findings[case], settings)
    left_out = _left_out(findings.values())
    kept = tuple(f for f in findings.values() if not f.is_left_out)
    return CommitComparison(baseline, candidate, versions, kept, left_out, settings)


def _first(
    sides: Sides, cases: Sequence[Case], settings: TimingSettings, observe: OnCase
) -> Iterator[tuple[Case, CaseFinding]]:
    labels_by_side = [{case.label for case in side.cases} for side in sides.both]
    for done, case in enumerate(cases):
        observe(done, len(cases), case, 1)
        if not all(case.label in labels for labels in labels_by_side):
            yield case, sides.alone(case, labels_by_side)
        elif case.kind == "time":
            yield case, sides.timed(case, None, settings)
        else:
            yield case, sides.tracked(case)


def _all_cases(sides: Sides) -> list[Case]:
    """The cases of the candidate, then those that only the baseline can import."""
    labels = {case.label for case in sides.candidate.cases}
    return [
        *sides.candidate.cases,
        *(case for case in sides.baseline.cases if case.label not in labels),
    ]


@contextmanager
def _exported(checkout: Checkout, *commits: Commit) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="bdhf-commits-") as folder:
        yield [
            checkout.export(commit, Path(folder) / str(number))
            for number, commit in enumerate(commits)
        ]


def _sides(checkout: Checkout, trees: Sequence[Path], swapped: bool = False) -> Sides:
    """A new process for each; the order of starting alternates from pair to pair."""
    order = (1, 0) if swapped else (0, 1)
    started: dict[int, BenchmarkProcess] = {}
    try:
        for side in order:
            started[side] = BenchmarkProcess(trees[side], checkout.benchmarks)
    except BaseException:
        for worker in started.values():
            worker.close()
        raise
    return Sides(started[0], started[1])


def _once(worker: BenchmarkProcess, case: Case, missing: Missing | None) -> Value:
    """Seconds of a single call of a prepared case that the other side cannot run."""
    try:
        return missing or worker.seconds(case, 1)
    except Failed as error:
        return Missing(str(error))


def _tried(ask: Callable[[Case], _T], case: Case) -> _T | Missing:
    """The answer of a worker, or why there is none."""
    try:
        return ask(case)
    except Skipped as reason:
        return Missing(str(reason), skipped=True)
    except Failed as error:
        return Missing(str(error))


def _left_out(findings: Iterable[CaseFinding]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for finding in findings:
        if finding.is_left_out:
            assert isinstance(finding.now, Missing)
            reasons[finding.now.reason] = reasons.get(finding.now.reason, 0) + 1
    return reasons
