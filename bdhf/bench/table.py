"""The verdict on two commits as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bdhf.bench.against import CommitComparison
from bdhf.bench.verdict import CaseFinding, CaseVerdict, Missing, Value, ratio_interval
from bdhf.text.formatting import short, with_unit

#: Kind and exactness of a case -> its plural.
_KINDS = {("time", False): "times", ("track", True): "counts", ("track", False): "amounts"}

_HEADINGS = ("benchmark", "before", "now", "verdict")


def table_lines(comparison: CommitComparison, everything: bool = False) -> Iterator[str]:
    """The commits, a row for every change, a line for unchanged benchmarks, and the verdict."""
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    yield f"{comparison.candidate} against {comparison.baseline}; {versions}, one thread"
    yield ""
    shown = [f for f in comparison.findings if everything or not _is_quiet(f)]
    shown.sort(key=lambda f: (not f.verdict.is_regression, f.verdict is CaseVerdict.SAME))
    if shown:
        yield from _table(shown, comparison.settings.pairs)
        yield ""
    if not everything:
        yield from _stayed(comparison)
    for reason, number in comparison.left_out.items():
        yield f"{number} left out on both sides: {reason}"
    yield _verdict(comparison)


def as_json(comparison: CommitComparison) -> dict[str, Any]:
    """The same as plain data; a side without a number has the reason."""
    return {
        "baseline": asdict(comparison.baseline),
        "candidate": asdict(comparison.candidate),
        "versions": dict(comparison.versions),
        "settings": asdict(comparison.settings),
        "measured": comparison.measured,
        "regressions": [finding.case.label for finding in comparison.regressions],
        "left_out": dict(comparison.left_out),
        "findings": [
            {
                "benchmark": finding.case.label,
                "unit": finding.case.unit,
                "verdict": str(finding.verdict),
                "before": _plain(finding.before),
                "now": _plain(finding.now),
                "ratios": [asdict(ratio) for ratio in finding.ratios],
            }
            for finding in comparison.findings
        ],
    }


def _plain(value: Value) -> float | dict[str, str]:
    return {"missing": value.reason} if isinstance(value, Missing) else value


def _table(findings: list[CaseFinding], pairs: int) -> Iterator[str]:
    rows = [_HEADINGS, *(_row(finding, pairs) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        yield "  ".join([*cells, row[3]])


def _row(finding: CaseFinding, pairs: int) -> tuple[str, str, str, str]:
    unit = finding.case.unit
    return (
        finding.case.label, _as_text(finding.before, unit), _as_text(finding.now, unit),
        f"{finding.verdict}{_why(finding, pairs)}",
    )  # fmt: skip


def _why(finding: CaseFinding, pairs: int) -> str:
    if finding.ratios:
        low, middle, high = ratio_interval(finding.ratios)
        timed = len(finding.ratios)
        agree = f"all {pairs}" if finding.verdict is not CaseVerdict.UNDECIDED else str(timed)
        seen = f", {agree} pairs of processes" if timed > 1 else ""
        return f": {middle:.2f}x the time ({low:.2f} to {high:.2f}{seen})"
    missing = [v.reason for v in (finding.now, finding.before) if isinstance(v, Missing)]
    if missing:
        return f": {missing[0]}"
    if finding.verdict is not CaseVerdict.SAME and not finding.case.exact:
        return f": {_quotient(finding)}"
    return ""


def _quotient(finding: CaseFinding) -> str:
    before, now = finding.before, finding.now
    assert not isinstance(before, Missing)
    assert not isinstance(now, Missing)
    return f"{short(100 * now / before)} % of before" if before else "0 before"


def _as_text(value: Value, unit: str) -> str:
    return "-" if isinstance(value, Missing) else with_unit(value, unit)


def _is_quiet(finding: CaseFinding) -> bool:
    """Whether it needs no row: unchanged, or a time without a suspicion in its first pair."""
    unsuspected = finding.verdict is CaseVerdict.UNDECIDED and len(finding.ratios) == 1
    return finding.verdict is CaseVerdict.SAME or unsuspected


def _stayed(comparison: CommitComparison) -> Iterator[str]:
    """One line for every file of benchmarks and every kind of finding."""
    groups: dict[tuple[str, str], list[CaseFinding]] = {}
    for finding in comparison.findings:
        if _is_quiet(finding):
            kind = _KINDS[finding.case.kind, finding.case.exact]
            if finding.verdict is CaseVerdict.UNDECIDED:
                kind = "times within the noise"
            groups.setdefault((finding.case.name.split(".")[0], kind), []).append(finding)
    for (file, kind), findings in sorted(groups.items()):
        middles = [ratio.middle for finding in findings for ratio in finding.ratios]
        spread = f" ({min(middles):.2f}x to {max(middles):.2f}x)" if middles else ""
        as_before = "" if kind.endswith("noise") else " as before"
        yield f"{file}: {len(findings)} {kind}{as_before}{spread}"


def _verdict(comparison: CommitComparison) -> str:
    if not comparison.measured and not comparison.regressions:
        return "verdict: nothing was measured"
    measured = f"of {comparison.measured} measured"
    if not comparison.regressions:
        return f"verdict: no regression, {measured}"
    counted = Counter(str(finding.verdict) for finding in comparison.regressions)
    kinds = ", ".join(f"{number} {verdict}" for verdict, number in counted.items())
    return f"verdict: {len(comparison.regressions)} regressions, {measured}: {kinds}"
