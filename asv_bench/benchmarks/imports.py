"""The cost of starting: seconds of an import or a command in a new interpreter.

The public names are lazy, so help, statistics and reports start without torch: `track_torch` is 1
where torch was imported.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from .tracked import Timed, count

#: Module or command -> Python code that starts it.
STARTED: Mapping[str, str] = {
    "bdhf": "import bdhf",
    "bdhf.optim": "import bdhf.optim",
    "bdhf.experiments.plan": "from bdhf.experiments.plan import expand",
    "bdhf.stats": "import bdhf.stats.compare",
    "bdhf.report": "import bdhf.report",
    "bdhf --help": "from typer.testing import CliRunner; from bdhf.cli import app; "
    "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
}


def run(code: str) -> str:
    """Run code in a new process of this interpreter; its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8"
    )
    return done.stdout


class Start(Timed):
    """A new interpreter."""

    param_names = ("started",)
    params = (tuple(STARTED),)
    repeat = (3, 5, 5.0)

    def time_start(self, name: str) -> None:
        """Seconds until it is there, those of Python itself included."""
        run(STARTED[name])

    @count("modules")
    def track_torch(self, name: str) -> int:
        """Whether torch was imported on the way, 0 or 1."""
        return int(run(f"{STARTED[name]}; import sys; print(int('torch' in sys.modules))"))
