"""The commands, in this process."""

from __future__ import annotations

from click.testing import Result
from typer.testing import CliRunner

from bdhf.cli import app


def bdhf(*arguments: object, code: int = 0) -> Result:
    """Run a command; it ends with this exit code and without a traceback."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, (SystemExit, type(None))), repr(done.exception)
    assert done.exit_code == code, done.output
    return done
