"""The command `bench`: benchmarks over commits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from bdhf.cli.app import app, err, errors_reported, say, say_json

if TYPE_CHECKING:
    from bdhf.bench.checkout import Checkout
    from bdhf.bench.process import Case


@app.command()
def bench(
    commits: Annotated[
        str, typer.Argument(help="A commit, or a range that asv takes.", metavar="[COMMIT]")
    ] = "HEAD",
    against: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Compare COMMIT with this one instead of recording it."),
    ] = None,
    counts: Annotated[
        bool,
        typer.Option(
            "--counts", help="Compare the counts of the working tree with expected_counts.json."
        ),
    ] = False,
    write: Annotated[
        bool,
        typer.Option("--write", help="With --counts: write the counts to expected_counts.json."),
    ] = False,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option("--bench", metavar="REGEX", help="Only benchmarks that match; repeatable."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Record: one sample, not kept. Compare: a third of the time."),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="With --against: the largest ratio of times without a change; default 1.05.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With --against: show unchanged benchmarks too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --against: as JSON.")] = False,
    machine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Record as this machine of asv.")
    ] = None,
) -> None:
    """Record benchmarks of a commit with asv, or compare two commits.

    Exit code 0: done, and no regression; 1: a regression, a failed benchmark or another count;
    2: nothing was measured.
    """
    from bdhf.bench.checkout import find_clone
    from bdhf.experiments.engines.interrupt import interruptible

    if against is not None and counts:
        raise typer.BadParameter("give --against or --counts, not both")
    _refuse_idle(
        {"--write": (write, counts), "--margin": (margin is not None, against is not None),
         "--all": (everything, against is not None), "--json": (as_json, against is not None),
         "--quick": (quick, not counts), "COMMIT": (commits != "HEAD", not counts),
         "--machine": (machine is not None, against is None and not counts)}
    )  # fmt: skip
    wanted = _wanted(benchmarks or [])
    try:
        with errors_reported(), interruptible():
            checkout = find_clone()
            if counts:
                _count(checkout, wanted, write)
            elif against is not None:
                _compare(checkout, against, commits, wanted, quick, margin, everything, as_json)
            else:
                _record(checkout, commits, benchmarks or [], quick, machine)
    except KeyboardInterrupt:
        err.print("Interrupted: no verdict.")
        raise typer.Exit(130) from None


def _refuse_idle(options: Mapping[str, tuple[bool, bool]]) -> None:
    """Refuse options that have no effect here, so that none is silently ignored."""
    idle = [name for name, (is_set, has_use) in options.items() if is_set and not has_use]
    if idle:
        raise typer.BadParameter(f"{', '.join(idle)}: no effect here; see `bdhf bench --help`")


def _wanted(patterns: list[str]) -> Callable[[str], bool]:
    """Whether a label matches one of the patterns; without patterns, every label does."""
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise typer.BadParameter(f"--bench: not a regular expression: {error}") from None
    return lambda label: not compiled or any(p.search(label) for p in compiled)


def _count(checkout: Checkout, wanted: Callable[[str], bool], write: bool) -> None:
    from bdhf.bench import counts

    def observe(case: Case) -> None:
        err.print(case.label, markup=False)

    counted = (counts.write_expected if write else counts.check_counts)(checkout, wanted, observe)
    for fault in counted.faults:
        say(fault)
    if write:
        say(f"{len(counted.by_label)} counts of torch {counted.torch} written")
    elif counted.faults:
        say(f"verdict: the counts differ from those expected of torch {counted.torch}")
        raise typer.Exit(1)
    else:
        number = len(counted.by_label)
        say(f"verdict: all {number} counts are those expected of torch {counted.torch}")


def _compare(
    checkout: Checkout,
    against: str,
    commits: str,
    wanted: Callable[[str], bool],
    quick: bool,
    margin: float | None,
    everything: bool,
    as_json: bool,
) -> None:
    from bdhf.bench.against import TimingSettings
    from bdhf.bench.against import compare_commits as compared
    from bdhf.bench.table import as_json as in_json
    from bdhf.bench.table import table_lines
    from bdhf.text.formatting import plain_count

    def observe(done: int, of: int, case: Case, pair: int) -> None:
        err.print(f"pair {pair}, {done + 1}/{of}: {case.label}", markup=False)

    baseline, candidate = checkout.commit(against), checkout.commit(commits)
    if candidate.digest == baseline.digest:
        err.print("warning: both are the same commit: every difference is noise", markup=False)
    if changed := checkout.changed(candidate):
        files = plain_count(len(changed), "file")
        err.print(
            f"warning: the working tree differs from {candidate} in {files} of the package, and is "
            "not measured: commit the changes, or give `$(git stash create)` as COMMIT",
            markup=False,
        )
    default = TimingSettings()
    settings = replace(
        default,
        margin=default.margin if margin is None else margin,
        budget=default.budget / (3 if quick else 1),
    )
    comparison = compared(checkout, baseline, candidate, wanted, settings, observe)
    if as_json:
        say_json(in_json(comparison))
    else:
        for line in table_lines(comparison, everything):
            say(line)
    if not comparison.measured and not comparison.regressions:
        raise typer.Exit(2)
    if comparison.regressions:
        raise typer.Exit(1)


def _record(
    checkout: Checkout, commits: str, benchmarks: list[str], quick: bool, machine: str | None
) -> None:
    from bdhf.bench.record import range_of, run_asv

    if range_of(commits) == f"{commits}^!":
        checkout.commit(commits)  # raises if there is no such commit
    recorded = run_asv(checkout, commits, benchmarks, quick=quick, machine=machine)
    kept = "not kept" if recorded.folder is None else f"kept in {recorded.folder}"
    say(f"{recorded.results} results, {recorded.failed} failed; {kept}")
    if not recorded.results:
        raise typer.Exit(2)
    if recorded.failed or recorded.exit_code:
        raise typer.Exit(1)
