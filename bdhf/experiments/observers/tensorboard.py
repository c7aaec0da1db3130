"""Runs as event files: `tensorboard --logdir results/<ablation>/trackers/tensorboard`.

One folder per run, named after its arm, its seed and its run id. A repeated run replaces its
folder, so that no two curves mix.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdhf.experiments.observers.tracker import measured, settings
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records import DIAGNOSTICS, Status

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PARTS = ("train", "val", "test")


class TensorBoard:
    """Scalars against the update, settings as hyperparameters, the end of the run as text.

    Raises ImportError if the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, ablation: str, labels: Mapping[str, str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open_writer = SummaryWriter
        self._folder = folder / "trackers" / "tensorboard"
        self._labels = labels
        self._writers: dict[str, SummaryWriter] = {}
        self._updates: dict[str, int] = {}

    def started(self, run: RunSpec) -> None:
        """Create the folder of the run, instead of an old one."""
        from torch.utils.tensorboard.summary import hparams

        path = self._folder / folder_name(self._labels[run.run_id], run.run_id)
        if path.exists():
            shutil.rmtree(path)
        writer = self._writers[run.run_id] = self._open_writer(str(path))
        self._updates[run.run_id] = 0
        # Only the second of the three summaries: arms differ in their settings, and TensorBoard
        # would use the columns of one run's `experiment` for all runs.
        _, start, _ = hparams(settings(run), {})
        _add(writer, start)
        writer.flush()

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """Write the measured values at once, for a viewer that is open."""
        writer, update = self._writers[run.run_id], int(row["update"])
        self._updates[run.run_id] = update
        for column, value in measured(row).items():
            writer.add_scalar(tag(column), value, update)
        writer.flush()

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """Write status and reason, and close the file."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers.pop(run.run_id)
        writer.add_text("outcome", f"{status}: {reason}", self._updates.pop(run.run_id))
        if not Status(status).is_missing:
            _, _, success = hparams({}, {})
            _add(writer, success)
        writer.close()

    def close(self) -> None:
        """Close the files of the runs that have not ended."""
        while self._writers:
            self._writers.popitem()[1].close()


def _add(writer: SummaryWriter, summary: object) -> None:
    """Write a summary for which the writer has no method."""
    file: Any = writer.file_writer  # its annotation in torch is that of a closed writer, None
    file.add_summary(summary)


def tag(column: str) -> str:
    """The name of a column of a curve in TensorBoard, which groups names by the part before `/`.

    >>> tag("val_loss"), tag("seconds"), tag("damping")
    ('loss/val', 'cost/seconds', 'diagnostics/damping')
    """
    part, _, metric = column.partition("_")
    if part in _PARTS and metric:
        return f"{metric}/{part}"
    return f"diagnostics/{column}" if column in DIAGNOSTICS else f"cost/{column}"


def folder_name(label: str, run_id: str) -> str:
    """The name of the folder of a run: valid on any file system, and unique.

    >>> folder_name("hf partition=full seed 3", "0f3a")
    'hf_partition=full_seed_3_0f3a'
    """
    words = re.sub(r"[^\w.,=+-]+", "_", label)
    return f"{words[:100]}_{run_id}"
