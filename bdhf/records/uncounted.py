"""Words for cells of the plan without a whole run, by their reason in `runs.parquet`."""

from __future__ import annotations

#: The reason of a folder that does not exist.
NOT_RUN = "not run yet"

#: First word of the reason of a folder that is not a whole run -> its name in reports.
UNCOUNTED = {"torn": "torn", "foreign": "of a newer bdhf", "unreadable": "unreadable"}


def uncounted(reason: object) -> str:
    """Why a cell without a status has no whole run, without the details.

    >>> uncounted("torn: curve.parquet: …"), uncounted("foreign: records of …")
    ('torn', 'of a newer bdhf')
    >>> uncounted("not run yet"), uncounted(None)
    ('not run yet', 'not run yet')
    """
    return UNCOUNTED.get(str(reason).partition(":")[0], NOT_RUN)
