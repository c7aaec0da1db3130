"""What `verify` says: of the page, of a results folder, of runs that were made again."""

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

#: Contradictions, or parts of drawings, of which no more are told.
_MOST_TOLD = 20

#: Characters of a line that are told around the place where it differs.
_AROUND = 50


def page_lines(report: Path, found: Verified) -> Iterator[str]:
    """What differs of a page; at last what was computed again, and whether all agrees."""
    for line in found.lines:
        yield f"{report}:{line.number}: {_told(line)}"
    if found.differing > len(found.lines):
        yield f"{found.differing - len(found.lines)} more lines differ"
    for what in found.foreign[:_MOST_TOLD]:
        yield f"a drawing holds what no drawing of bdhf has: {what}"
    for contradiction in found.contradictions[:_MOST_TOLD]:
        yield f"the records contradict themselves: {contradiction}"
    for rest, what in ((found.foreign, "such"), (found.contradictions, "contradictory")):
        if len(rest) > _MOST_TOLD:
            yield f"{len(rest) - _MOST_TOLD} more {what} places"
    if found.drawings:
        yield _drawn(found)
    if found.other_versions and (found.drawings or not found.agrees):
        pairs = (f"{name} {a}, here {b}" for name, (a, b) in found.other_versions.items())
        yield f"made with {'; '.join(pairs)}"
    if found.capsule.anonymous:
        yield f"anonymous: left out were {LEFT_OUT}"
    yield _summary(found)


def held_lines(folder: Path, held: FolderComparison) -> Iterator[str]:
    """What differs between a report and a folder."""
    for difference in held.differences:
        yield f"{folder}: {difference}"
    verdict = plain_count(len(held.differences), "difference") if held.differences else "all agree"
    yield f"{plain_count(held.files, 'file')} of {folder} held against the report: {verdict}"


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
    """What differs of a run that was made again, and what may explain it."""
    for difference in run.differences:
        yield f"{run.run_id} ({run.name}): {difference}"
    if run.differences:
        why = "; ".join(run.explanations) or "nothing of the environment does"
        yield f"  what may explain it: {why}"
    verdict = "the same bits" if run.agrees else _differs(run)
    size = f"{plain_count(run.numbers, 'number')} in {plain_count(run.rows, 'evaluation')}"
    yield f"{run.run_id} ({run.name}) made again, {run.status}: {size}: {verdict}"


def page_as_json(found: Verified) -> dict[str, Any]:
    """Everything that was found of a page, as plain data."""
    return {
        "page_agrees": found.agrees,
        "runs": found.runs,
        "numbers": found.numbers,
        "figures": found.figures,
        "sha256": found.capsule.sha256,
        "anonymous": found.capsule.anonymous,
        "differing_lines": found.differing,
        "lines": [
            {"line": line.number, "says": line.says, "gives": line.gives} for line in found.lines
        ],
        "drawings": list(found.drawings),
        "drawings_checked": found.same_drawing,
        "foreign": list(found.foreign),
        "contradictions": list(found.contradictions),
        "made_with": dict(found.made_with),
        "here": dict(found.here),
    }


def rerun_as_json(run: Rerun) -> dict[str, Any]:
    """Everything that was found of a run, as plain data."""
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
    """The verdict on a run that differs: with other code of a user's own, it could not but."""
    if not run.other_code:
        return "differs"
    return (
        f"not checked: the code of {', '.join(run.other_code)} here is not that which the run "
        "was made with, and another code gives other numbers; put the recorded one there"
    )


def _summary(found: Verified) -> str:
    """`412 numbers of 24 runs and 3 figures recomputed: all agree`."""
    what = f"{plain_count(found.numbers, 'number')} of {plain_count(found.runs, 'run')}"
    figures = f" and {plain_count(found.figures, 'figure')}" if found.figures else ""
    counts = {
        "line": found.differing,
        "figure": len(found.drawings),
        "foreign part": len(found.foreign),
        "contradiction": len(found.contradictions),
    }
    differ = " and ".join(plain_count(n, noun) for noun, n in counts.items() if n)
    verdict = "all numbers and words agree" if differ and found.agrees else "all agree"
    return f"{what}{figures} recomputed: {verdict if found.agrees else f'differing: {differ}'}"


def _drawn(found: Verified) -> str:
    names = ", ".join(found.drawings)
    if found.same_drawing:
        return f"drawn otherwise than the records give: {names}"
    there = found.made_with.get("matplotlib", "that is not known")
    return (
        f"drawn by matplotlib {there} and otherwise than by the one here, so the drawings are not "
        f"checked: {names}; `pip install matplotlib=={there}` lets them be"
    )


def _told(line: Line) -> str:
    """Both sides of a line, from a little before the place where they differ."""
    if line.gives is None:
        return f"says `{_short(line.says or '', 0)}`, which the records do not give"
    if line.says is None:
        return f"`{_short(line.gives, 0)}` is missing, which the records give"
    pairs = enumerate(zip(line.says, line.gives, strict=False))
    end = min(len(line.says), len(line.gives))
    at = next((i for i, (a, b) in pairs if a != b), end)
    return f"says `{_short(line.says, at)}`, the records give `{_short(line.gives, at)}`"


def _short(text: str, at: int) -> str:
    first, last = max(at - _AROUND // 2, 0), at + _AROUND
    return f"{'…' if first else ''}{text[first:last].strip()}{'…' if last < len(text) else ''}"
