"""The command `verify`: an audit of a report, without trust in its author."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bdhf.cli.app import AsJson, app, errors_reported, say, say_json

if TYPE_CHECKING:
    import pandas as pd

    from bdhf.experiments.audit.rerun import Claimed, Rerun
    from bdhf.records import Records
    from bdhf.report.embedded.encoding import EmbeddedRecords

#: Possible causes of a difference that an anonymous report leaves out.
_LEFT_OUT = "the processor, the platform and the commit, which were left out"

_KEYS = ["arm", "seed", "run_id"]


@app.command()
def verify(
    report: Annotated[Path, typer.Argument(help="A report.html.", metavar="REPORT")],
    rerun: Annotated[
        int, typer.Option(min=0, metavar="N", help="Repeat N runs, drawn at random.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of the draw.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="Compare the records with a results folder too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute a report again from the records that it carries, and show the differences.

    Exit code 0: all agrees; 1: something differs; 2: no report, or its records are cut or changed.
    """
    from bdhf.cli.audit import held_lines, page_as_json, page_lines
    from bdhf.report.verify.against_folder import compare_with_folder as held_against
    from bdhf.report.verify.verify import verify as verified

    def print_lines(lines: Iterable[str]) -> None:
        for line in () if as_json else lines:
            say(line)

    if seed is not None and not rerun:
        raise typer.BadParameter("--seed needs --rerun N")
    with errors_reported():
        audit = verified(report)
        print_lines(page_lines(report, audit))
        content, agrees = {"report": str(report), **page_as_json(audit)}, audit.agrees
        if against is not None:
            held = held_against(audit.embedded, against)
            print_lines(held_lines(against, held))
            content["against"] = {"files": held.files, "differences": held.differences}
            agrees &= not held.differences
        if rerun:
            drawn = secrets.randbelow(10**6) if seed is None else seed
            content["rerun"], same = _rerun(audit.embedded, report, rerun, drawn, print_lines)
            agrees &= same
    if as_json:
        say_json({**content, "agrees": agrees})
    if not agrees:
        raise typer.Exit(1)


def _rerun(
    embedded: EmbeddedRecords,
    report: Path,
    count: int,
    seed: int,
    print_lines: Callable[[Iterable[str]], None],
) -> tuple[dict[str, Any], bool]:
    """Compare the plan and the runs with their specs, then repeat runs; print each as it ends."""
    from bdhf.cli.audit import pool_line, rerun_as_json, rerun_lines, unmade_line
    from bdhf.experiments.audit.replan import unplanned
    from bdhf.experiments.audit.rerun import choose, misnamed, unrepeatable_runs
    from bdhf.experiments.audit.rerun import rerun as made_again

    claimed = _claimed(embedded)
    others = (*unplanned(embedded.records, report), *misnamed(claimed))
    print_lines(f"{report}: {other}" for other in others)
    unchecked = unrepeatable_runs(claimed)
    print_lines([pool_line(len(claimed), unchecked)] if unchecked else [])
    unmade = _not_made(embedded.records)
    print_lines([unmade_line(len(claimed) + unmade.total(), unmade)] if unmade else [])
    chosen = choose(claimed, count, seed)
    print_lines([f"drawn with --seed {seed}: {', '.join(claim.run_id for claim in chosen)}"])
    runs: list[Rerun] = []
    for claim in chosen:
        runs.append(made_again(claim))
        print_lines(rerun_lines(runs[-1]))
    content = {
        "seed": seed,
        "plan": others,
        "can_be_made_again": len(claimed) - unchecked.total(),
        "cannot_be_checked": dict(unchecked),
        "not_made": dict(unmade),
        "runs": [rerun_as_json(run) for run in runs],
    }
    return content, not others and all(run.agrees for run in runs)


def _not_made(records: Records) -> Counter[str]:
    """The number of runs of the plan that did not begin or are incomplete, by reason."""
    from bdhf.records import uncounted
    from bdhf.report.verify.consistency import BEGUN

    runs = records.runs.drop_duplicates("run_id")
    runs = runs[~runs["status"].isin(BEGUN)]
    return Counter(runs["status"].astype(object).fillna(runs["reason"].map(uncounted)))


def _claimed(embedded: EmbeddedRecords) -> list[Claimed]:
    """The statements of the report on each run that began; a run of several cells is one entry."""
    from bdhf.experiments.audit.rerun import Claimed
    from bdhf.records import run_labels
    from bdhf.report.embedded.archive import lighten
    from bdhf.report.verify.consistency import BEGUN

    records, files = embedded.records, embedded.files
    cells = [(str(arm), int(seed), str(run_id), str(status)) for arm, seed, run_id, status
             in records.runs[[*_KEYS, "status"]].astype(object).to_numpy()]  # fmt: skip
    labels = run_labels(cell[:3] for cell in cells)
    curves = dict(list(records.curves.groupby(["arm", "seed"], sort=False)))
    environments = {row["run_id"]: row for row in records.environments.to_dict("records")}
    no_curve = records.curves.iloc[:0]
    claims: dict[str, Claimed] = {}
    for arm, seed, run_id, status in cells:
        if status in BEGUN:
            claims[run_id] = Claimed(
                run_id=run_id,
                name=labels[run_id],
                spec=files[run_id].spec if run_id in files else "",
                status=status,
                curve=curves.get((arm, seed), no_curve).drop(columns=_KEYS).reset_index(drop=True),
                environment=_stated(embedded, environments.get(run_id, {})),
                short=lighten if embedded.light else _as_it_is,
                left_out=_LEFT_OUT if embedded.anonymous else "",
            )
    return list(claims.values())


def _stated(embedded: EmbeddedRecords, environment: Mapping[Hashable, Any]) -> dict[str, Any]:
    """The environment that the report states, without the letters of an anonymous report."""
    from bdhf.report.embedded.anonymous import KEPT, VERSIONS

    kept = (*KEPT, *VERSIONS) if embedded.anonymous else tuple(map(str, environment))
    return {str(key): value for key, value in environment.items() if key in kept}


def _as_it_is(curve: pd.DataFrame) -> pd.DataFrame:
    return curve
