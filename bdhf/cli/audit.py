"""The output of `verify`: on the page, on a results folder, on repeated runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdhf.records import FAILED
from bdhf.report.embedded.anonymous import LEFT_OUT
from bdhf.text.formatting import plain_count

if TYPE_CHECKING:
    from bdhf.experiments.audit.rerun import Rerun
    from bdhf.report.verify.against_folder import FolderComparison
    from bdhf.report.verify.verify import Line, Verified

#: Contradictions, and unknown parts of drawings, that are printed at most.
_MOST_PRINTED = 20

#: Characters of a line that are printed around a difference.
_AROUND = 50


def page_lines(report: Path, audit: Verified) -> Iterator[str]:
    """The differences of a page, then what was recomputed and whether all agrees."""
    for line in audit.lines:
        yield f"{report}:{line.number}: {_both_sides(line)}"
    if audit.differing > len(audit.lines):
        yield f"{audit.differing - len(audit.lines)} more lines differ"
    for part in audit.foreign[:_MOST_PRINTED]:
        yield f"a drawing has a part that bdhf does not draw: {part}"
    for contradiction in audit.contradictions[:_MOST_PRINTED]:
        yield f"the records contradict themselves: {contradiction}"
    for faults, noun in ((audit.foreign, "unknown part"), (audit.contradictions, "contradiction")):
        if len(faults) > _MOST_PRINTED:
            yield plain_count(len(faults) - _MOST_PRINTED, f"more {noun}")
    if audit.drawings:
        yield _drawn(audit)
    if audit.other_versions and (audit.drawings or not audit.agrees):
        pairs = (f"{name} {a}, here {b}" for name, (a, b) in audit.other_versions.items())
        yield f"made with {'; '.join(pairs)}"
    if audit.embedded.anonymous:
        yield f"anonymous: left out are {LEFT_OUT}"
    yield _summary(audit)


def held_lines(folder: Path, held: FolderComparison) -> Iterator[str]:
    """The differences between a report and a folder."""
    for difference in held.differences:
        yield f"{folder}: {difference}"
    verdict = plain_count(len(held.differences), "difference") if held.differences else "all agree"
    yield f"{plain_count(held.files, 'file')} of {folder} compared with the report: {verdict}"


def pool_line(begun: int, unchecked: Counter[str]) -> str:
    """`13 of 16 runs can be made again; 3 failed ones cannot be checked: oom 3`."""
    number = unchecked.total()
    each = ", ".join(f"{status} {n}" for status, n in sorted(unchecked.items()))
    which = "failed one" if set(unchecked) <= set(FAILED) else "other"
    return (
        f"{begun - number} of {plain_count(begun, 'run')} can be made again; "
        f"{plain_count(number, which)} cannot be checked: {each}"
    )


def unmade_line(planned: int, unmade: Counter[str]) -> str:
    """`1 of 9 runs of the plan was not made, and cannot be checked: not run yet 1`."""
    number = unmade.total()
    each = ", ".join(f"{why} {n}" for why, n in sorted(unmade.items()))
    verb = "was" if number == 1 else "were"
    return (
        f"{number} of {plain_count(planned, 'run')} of the plan {verb} not made, and cannot be "
        f"checked: {each}"
    )


def rerun_lines(run: Rerun) -> Iterator[str]:
    """The differences of a repeated run, and their possible causes."""
    for difference in run.differences:
        yield f"{run.run_id} ({run.name}): {difference}"
    if run.differences:
        causes = "; ".join(run.explanations) or "none in the environment"
        yield f"  possible causes: {causes}"
    verdict = "the same bits" if run.agrees else _differs(run)
    size = f"{plain_count(run.numbers, 'number')} in {plain_count(run.rows, 'evaluation')}"
    yield f"{run.run_id} ({run.name}) made again, {run.status}: {size}: {verdict}"


def page_as_json(audit: Verified) -> dict[str, Any]:
    """The audit of a page as plain data."""
    return {
        "page_agrees": audit.agrees,
        "runs": audit.runs,
        "numbers": audit.numbers,
        "figures": audit.figures,
        "sha256": audit.embedded.sha256,
        "anonymous": audit.embedded.anonymous,
        "differing_lines": audit.differing,
        "lines": [
            {"line": line.number, "says": line.says, "gives": line.gives} for line in audit.lines
        ],
        "drawings": list(audit.drawings),
        "drawings_checked": audit.same_drawing,
        "foreign": list(audit.foreign),
        "contradictions": list(audit.contradictions),
        "made_with": dict(audit.made_with),
        "here": dict(audit.here),
    }


def rerun_as_json(run: Rerun) -> dict[str, Any]:
    """The check of a repeated run as plain data."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "evaluations": run.rows,
        "numbers": run.numbers,
        "differences": list(run.differences),
        "explanations": list(run.explanations),
        "other_code": list(run.other_code),
    }


def _differs(run: Rerun) -> str:
    """The verdict on a run that differs; other code of an own part explains any difference."""
    if not run.other_code:
        return "differs"
    return (
        f"not checked: the code of {', '.join(run.other_code)} here differs from the code of the "
        "run, and so may the numbers; restore the recorded code"
    )


def _summary(audit: Verified) -> str:
    """`412 numbers of 24 runs and 3 figures recomputed: all agree`."""
    what = f"{plain_count(audit.numbers, 'number')} of {plain_count(audit.runs, 'run')}"
    figures = f" and {plain_count(audit.figures, 'figure')}" if audit.figures else ""
    counts = {
        "line": audit.differing,
        "figure": len(audit.drawings),
        "unknown part": len(audit.foreign),
        "contradiction": len(audit.contradictions),
    }
    differ = " and ".join(plain_count(n, noun) for noun, n in counts.items() if n)
    verdict = "all numbers and words agree" if differ and audit.agrees else "all agree"
    return f"{what}{figures} recomputed: {verdict if audit.agrees else f'differing: {differ}'}"


def _drawn(audit: Verified) -> str:
    names = ", ".join(audit.drawings)
    if audit.same_drawing:
        return f"drawings that differ from the records: {names}"
    version = audit.made_with.get("matplotlib", "(version unknown)")
    return (
        f"drawings not checked, because matplotlib {version} drew them and the version here draws "
        f"them differently: {names}; `pip install matplotlib=={version}` to check them"
    )


def _both_sides(line: Line) -> str:
    """Both sides of a line, from a little before their first difference."""
    if line.gives is None:
        return f"has `{_short(line.says or '', 0)}`, which the records do not give"
    if line.says is None:
        return f"lacks `{_short(line.gives, 0)}`, which the records give"
    pairs = enumerate(zip(line.says, line.gives, strict=False))
    end = min(len(line.says), len(line.gives))
    at = next((i for i, (a, b) in pairs if a != b), end)
    return f"has `{_short(line.says, at)}`, the records give `{_short(line.gives, at)}`"


def _short(text: str, at: int) -> str:
    first, last = max(at - _AROUND // 2, 0), at + _AROUND
    return f"{'…' if first else ''}{text[first:last].strip()}{'…' if last < len(text) else ''}"
