"""A plan in words: its arms, its comparisons, its time and its power."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bdhf.cli.app import clock, err, say

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation
    from bdhf.experiments.preview import ArmPreview, Preview
    from bdhf.experiments.spec.schema import Retry
    from bdhf.records import Comparison
    from bdhf.stats.power_check import PowerCheck

_ROWS = 60  # rows of a table, or lines of a list, that are printed at most


def arms_table(preview: Preview, costs: dict[str, float] | None) -> Table:
    """One row per arm; with many arms, one row per name in the spec."""
    columns = ["arm", "seeds", "runs", "still to do", "a run"]
    columns += ["gradients an update"] if costs else []
    table = Table(*columns, title=escape(preview.name))
    together: dict[str, list[ArmPreview]] = {}
    for arm in preview.arms:
        many = len(preview.arms) > _ROWS
        together.setdefault(arm.name if many else arm.label, []).append(arm)
    for label, arms in together.items():
        seeds = sorted({seed for arm in arms for seed in arm.seeds})
        table.add_row(
            escape(label) + (f" ({len(arms)} combinations)" if len(arms) > 1 else ""),
            f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
            str(sum(len(arm.seeds) for arm in arms)),
            str(sum(arm.left for arm in arms)),
            _range([arm.seconds for arm in arms], clock),
            *([_range([costs[arm.label] for arm in arms], "{:,.1f}".format)] if costs else []),
        )
    return table


def _range(values: Sequence[float | None], words: Callable[[float], str]) -> str:
    """The range of some numbers in words; "?" if one is unknown."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "?"
    least, most = words(min(numbers)), words(max(numbers))
    return least if least == most else f"{least} to {most}"


def say_comparisons(preview: Preview) -> None:
    """Print a line for every test, up to a limit."""
    from bdhf.records import tests_of, unit_of

    lines = [
        f"compare {entry.name}: {entry.candidate} against {entry.baseline}, "
        f"{unit_of(entry.estimand)}{f' to {target.label}' if target else ''}"
        for entry, target in tests_of(preview.comparisons, preview.targets)
    ]
    for line in lines[:_ROWS]:
        say(line)
    if len(lines) > _ROWS:
        say(f"… and {len(lines) - _ROWS} more comparisons; --json lists all")
    say_twins(preview.twins)


def say_twins(entries: Sequence[Comparison]) -> None:
    """Print a line for every comparison that is not made, up to a limit."""
    from bdhf.stats.caveats.twins import not_compared

    for line in not_compared(entries[:_ROWS]):
        say(line)
    if len(entries) > _ROWS:
        say(f"… and {len(entries) - _ROWS} more that are not compared; --json lists all")


def say_time(preview: Preview, workers: int) -> None:
    """Print the estimated time and its source."""
    from bdhf.text.formatting import plain_count

    if not preview.left:
        return
    seconds = preview.seconds_left(workers)
    if seconds is None:
        unknown = Counter(arm.source for arm in preview.arms if arm.left and arm.seconds is None)
        why = "; ".join(f"{number} arms: {source}" for source, number in unknown.items())
        say(f"time: unknown ({why}); --probe times three updates of each")
        return
    sources = sorted({arm.source for arm in preview.arms if arm.left})
    at_a_time = f"{plain_count(workers, 'run')} at a time"
    less = "; less where targets end runs" if "probe" in sources else ""
    say(f"time: about {clock(seconds)} with {at_a_time}, from {' and '.join(sources)}{less}")


def power_check_of(ablation: Ablation, *, pilot: bool = False) -> PowerCheck:
    """The power of the comparisons; with `pilot`, finished runs give the spread over seeds."""
    from bdhf.records import InputError, load
    from bdhf.stats.power_check import power_check

    spec, finished = ablation.spec, None
    if pilot:
        with suppress(InputError):  # nothing has been run yet
            finished = load(ablation.store.folder)
    comparisons, seeds = ablation.plan.comparisons, spec.seeds.count
    return power_check(
        comparisons, spec.targets, alpha=spec.alpha, seeds=seeds,
        arms=ablation.plan.arms, finished=finished,
    )  # fmt: skip


def say_power(check: PowerCheck) -> None:
    """Print a line for every test whose power is known, up to a limit."""
    from bdhf.stats.inference.power import MOST_SEEDS
    from bdhf.text.formatting import seeds_in_a_sentence

    for test in check.powers[:_ROWS]:
        on = f" on {test.target}" if test.target else ""
        say(
            f"power {test.name}{on}: {100 * test.power:.0f} % for a ratio of {test.margin:g}× with "
            f"{check.seeds} seeds (log ratios spread by {test.sd:.3g}, {test.source}); "
            f"{seeds_in_a_sentence(test.seeds, MOST_SEEDS)} it with 80 %"
        )


def warn_of_power(check: PowerCheck) -> None:
    """Warn, before any run, of comparisons that cannot be decided."""
    from bdhf.text.formatting import plain_count

    if check.seeds < check.needed:
        tests = plain_count(check.tests, "test")
        err.print(
            f"warning: {tests} at alpha {check.alpha:g} cannot be decided with fewer than "
            f"{check.needed} seeds; the spec has {check.seeds}",
            markup=False,
        )
    for test in check.coarse[:_ROWS]:
        err.print(
            f"warning: {test.name} on {test.target}: evaluated every {test.every} updates, costs "
            f"below {test.least:,} updates cannot be called equivalent within {test.margin:g}×; "
            f"{test.expected:,} are expected ({test.source}), for which `evaluate: "
            f"{{every_updates: {test.fine}}}` is fine enough",
            markup=False,
        )


def say_left(preview: Preview, todo: int) -> None:
    """`small: 6 runs, 2 done, 1 error, 3 to do, 1 of them now -> results/small`."""
    left, skipped, kept = preview.left, sum(preview.skipped.values()), preview.kept
    ended = ", ".join(f"{kept[status]} {status}" for status in dict.fromkeys(("done", *kept)))
    now = f", {todo} of them now" if todo < left else ""
    left_out = f", {skipped} skipped" if skipped else ""
    say(
        f"{preview.name}: {preview.runs} runs, {ended}, "
        f"{left} to do{now}{left_out} -> {preview.folder}"
    )


def say_failed(preview: Preview, retry: Retry) -> None:
    """Print which failed runs are repeated, and which are not and why."""
    from bdhf.text.formatting import plain_count

    for status, number in preview.again.items():
        why = "" if status in type(retry).model_fields else " with other code of an own part"
        say(f"to repeat: {plain_count(number, 'run')} that ended as {status} before{why}")
    for status in (s for s in preview.kept if s in type(retry).model_fields):
        number, tries = preview.kept[status], getattr(retry, status)
        say(
            f"not repeated: {plain_count(number, 'run')} that ended as {status} "
            f"(retry.{status} in the spec: {tries}); `--retry {status}` of `bdhf run` repeats them"
        )
