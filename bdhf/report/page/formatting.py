"""Lists, budgets and names of metrics as text, for a page."""

from __future__ import annotations

from bdhf.records import Records
from bdhf.text.formatting import whole


def listed(parts: list[str]) -> str:
    """Join parts of a sentence with commas and "and".

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def budgets(records: Records) -> str:
    """The limit of every budget of the ablation, the smallest first."""
    limits = {records.budget_of(arm).limit for arm in records.arms} or {records.budget.limit}
    return listed([whole(limit) for limit in sorted(limits)])


def metric_name(metric: str) -> str:
    """The name of the column of a metric, as text.

    >>> metric_name("val_loss"), metric_name("test_squared_error"), metric_name("accuracy")
    ('validation loss', 'test squared error', 'accuracy')
    """
    head, _, rest = metric.partition("_")
    spelt = {"val": "validation", "train": "training"}.get(head, head)
    return f"{spelt} {rest.replace('_', ' ')}".strip()
