"""The counts that an unchanged algorithm reproduces exactly, compared with the expected counts.

They are computed in float64 on one thread of the CPU, by kernels that every x86-64 has.
`asv_bench/expected_counts.json` holds them by the version of torch. A change of that file needs a
reason: a line of CHANGELOG.md with the file's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bdhf.bench.checkout import Checkout
from bdhf.bench.process import BenchmarkProcess, Case, Failed, Skipped
from bdhf.records import InputError

#: Version of torch -> label of a case -> its count.
Expected = Mapping[str, Mapping[str, float]]

EXPECTED = Path("asv_bench/expected_counts.json")
_CHANGELOG = Path("CHANGELOG.md")


@dataclass(frozen=True)
class Counts:
    """The counts of the working tree, and the differences from the expected ones."""

    torch: str
    by_label: Mapping[str, float]  # label -> count
    faults: tuple[str, ...]


def check_counts(
    checkout: Checkout,
    wanted: Callable[[str], bool] = lambda label: True,
    observe: Callable[[Case], None] = lambda case: None,
) -> Counts:
    """Count in the working tree, and compare with the counts for this version of torch.

    Raises InputError where nothing is counted, or this version has no expected counts: a check
    without numbers does not pass.
    """
    expected = read_expected(checkout)
    torch, counts, faults = _counted(checkout, wanted, observe)
    if not counts and not faults:
        raise InputError(["no counting benchmark was selected, so nothing was checked"])
    if torch not in expected:
        versions = ", ".join(expected) or "none"
        raise InputError(
            [
                f"{checkout.root / EXPECTED}: no counts for torch {torch}; known: {versions}. "
                "`bdhf bench --counts --write` adds them"
            ]
        )
    faults += [
        f"{label}: {_as_text(counts.get(label))} instead of {_as_text(expected[torch].get(label))}"
        for label in sorted(expected[torch].keys() | counts.keys())
        if wanted(label) and counts.get(label) != expected[torch].get(label)
    ]
    if (missing := unexplained(checkout)) is not None:
        faults.append(missing)
    return Counts(torch, counts, tuple(faults))


def write_expected(
    checkout: Checkout,
    wanted: Callable[[str], bool] = lambda label: True,
    observe: Callable[[Case], None] = lambda case: None,
) -> Counts:
    """Count, and write the counts as the expected ones; `faults` has the next step.

    Other counts stay as they are. Raises InputError, and writes nothing, where a counting benchmark
    fails, or none was selected.
    """
    torch, counts, faults = _counted(checkout, wanted, observe)
    if faults:
        raise InputError(faults)
    if not counts:
        raise InputError(["no counting benchmark was selected, so nothing was written"])
    before = read_expected(checkout)
    kept = {label: n for label, n in before.get(torch, {}).items() if not wanted(label)}
    expected = {**before, torch: dict(sorted({**kept, **counts}.items()))}
    path = checkout.root / EXPECTED
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dict(sorted(expected.items())), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    missing = unexplained(checkout)
    return Counts(torch, counts, () if missing is None else (missing,))


def read_expected(checkout: Checkout) -> Expected:
    """The expected counts; none without a file. Raises InputError for a torn file."""
    path = checkout.root / EXPECTED
    if not path.is_file():
        return {}
    try:
        expected: Expected = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError([f"{path}: not JSON: {error}; restore it by `git checkout`"]) from None
    return expected


def unexplained(checkout: Checkout) -> str | None:
    """The line to add to CHANGELOG.md; None where it has a reason for the present file."""
    digest = hashlib.sha256((checkout.root / EXPECTED).read_bytes()).hexdigest()[:8]
    changelog = checkout.root / _CHANGELOG
    text = changelog.read_text(encoding="utf-8") if changelog.is_file() else ""
    if re.search(rf"^- Counts `{digest}`: .*\w+ \w+", text, flags=re.MULTILINE):
        return None
    return (
        f"{changelog}: no reason for the present counts: add a line "
        f"`- Counts `{digest}`: WHY THEY CHANGED.`"
    )


def _counted(
    checkout: Checkout, wanted: Callable[[str], bool], observe: Callable[[Case], None]
) -> tuple[str, dict[str, float], list[str]]:
    """The version of torch, the counts by label, and the failures."""
    counts: dict[str, float] = {}
    faults: list[str] = []
    with BenchmarkProcess(checkout.root, checkout.benchmarks, exactly=True) as worker:
        faults += [f"{name}: cannot be imported: {why}" for name, why in worker.broken.items()]
        for case in worker.cases:
            if not case.exact or not wanted(case.label):
                continue
            observe(case)
            try:
                counts[case.label] = worker.value(case)
            except Skipped:
                continue
            except Failed as error:
                faults.append(f"{case.label}: failed: {error}")
    return worker.versions["torch"].partition("+")[0], counts, faults


def _as_text(value: float | None) -> str:
    return "nothing" if value is None else repr(value).removesuffix(".0")
