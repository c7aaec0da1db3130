"""In words: cells of the plan without a whole run, by the reason that `runs.parquet` gives."""

from __future__ import annotations

#: A folder that is not there.
NOT_RUN = "not run yet"

#: First word of the reason of a folder that is no whole run -> what it is.
UNCOUNTED = {"torn": "torn", "foreign": "of a newer bdhf", "unreadable": "unreadable"}


def uncounted(reason: object) -> str:
    """Why a cell without a status has no whole run, without the details.

    >>> uncounted("torn: curve.parquet: …"), uncounted("foreign: records of …")
    ('torn', 'of a newer bdhf')
    >>> uncounted("not run yet"), uncounted(None)
    ('not run yet', 'not run yet')
    """
    return UNCOUNTED.get(str(reason).partition(":")[0], NOT_RUN)
