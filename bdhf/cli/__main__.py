"""`python -m bdhf.cli`."""

import sys
from pathlib import Path

import bdhf
from bdhf.cli import main


def _leave_out_the_working_directory() -> None:
    """Remove the entry of `sys.path` that `python -m` added, unless bdhf itself is there.

    As with the installed command, only modules that a spec names are imported from its folder.
    """
    here = Path.cwd()
    is_first = not sys.flags.safe_path and sys.path[:1] == [str(here)]
    if is_first and here != Path(bdhf.__file__).parents[1]:
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_the_working_directory()
    main()
