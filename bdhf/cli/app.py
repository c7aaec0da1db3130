"""Shared by the commands: the app, its two consoles, and the reporting of errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bdhf.cli.console import PlainConsole
from bdhf.errors import BdhfError

if TYPE_CHECKING:
    from bdhf.experiments.storage.claims import Claim

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = PlainConsole()
err = PlainConsole(stderr=True)

Results = Annotated[
    Path, typer.Argument(help="The results folder of an ablation.", metavar="RESULTS")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        from bdhf import __version__

        out.print(f"bdhf {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Benchmarks and ablations of block-diagonal Hessian-free optimization."""


@contextmanager
def errors_reported() -> Iterator[None]:
    """Print errors of bdhf and of the disk line by line, and exit with code 2."""
    from bdhf.records import in_brief

    try:
        yield
    except BdhfError as error:
        for line in error.lines:
            warn(line)
        raise typer.Exit(2) from None
    except BrokenPipeError:  # the reader of the output has closed it
        raise
    except OSError as error:  # no permission, or the folder was removed while it was read
        warn(": ".join(filter(None, [str(error.filename or ""), in_brief(error)])))
        raise typer.Exit(2) from None


def say(line: str) -> None:
    """Print a text as one line, whatever it holds."""
    out.print(line, markup=False)


def say_lines(text: str) -> None:
    """Print a text line by line."""
    for line in text.split("\n"):
        say(line)


def warn(line: str) -> None:
    """Print a line on stderr."""
    err.print(line, markup=False)


def say_json(content: Mapping[str, Any]) -> None:
    """Print plain data as JSON, with null for numbers that are not finite."""
    typer.echo(json.dumps(_finite(content), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say_counts(counts: Mapping[str, int], what: str) -> None:
    """Print one line per reason, with its count."""
    for reason, number in counts.items():
        say(f"{number} {what}: {reason}")


def counts_in_words(counts: Counter[str]) -> str:
    """`3 done, 1 error`."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def holder(claim: Claim) -> str:
    """`process 71 on lab-3`, or an unknown process if the claim cannot be read."""
    owner = claim.owner
    return f"process {owner.pid} on {owner.host}" if owner.pid else "an unknown process"


def clock(seconds: float) -> str:
    """A duration in words.

    >>> clock(8.2), clock(75), clock(7300)
    ('8 s', '1 min 15 s', '2 h 2 min')
    """
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
