"""One RunSpec in, one outcome out; a failure is an outcome too."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.checkpoint import Checkpoint, Saver
from bdhf.experiments.run.failures import classified, release
from bdhf.experiments.run.process_state import own_globals
from bdhf.experiments.run.training import Diverged, Log, OutOfTime, Row, Training
from bdhf.experiments.spec.schema import Safety
from bdhf.records import CURVE_COLUMNS, Status


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and everything measured up to then."""

    status: Status
    reason: str
    curve: pd.DataFrame
    trace: str = ""
    resumed: int = 0  # how often the run resumed from a checkpoint
    no_checkpoint: str = ""  # why it cannot resume from one


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


def _show(observe: Callable[[Row], None], row: Row) -> None:
    """Call an observer without any effect on the generators of the run."""
    with own_globals(torch.device("cpu")):
        observe(row)


def execute(
    spec: RunSpec,
    *,
    device: str,
    safety: Safety,
    observe: Callable[[Row], None] = lambda row: None,
    again: Callable[[Row], None] = lambda row: None,
    checkpoint: Checkpoint | None = None,
    note: Callable[[str], None] = _warn,
    asked: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train once. `observe` receives every row of the curve as it is measured.

    `again` receives the rows that a resumed run had before.

    With a checkpoint the run resumes from its last save, if there is one. Its curve then has the
    same bits as without the interruption, in every column but `seconds`. A run whose own parts
    keep state that no checkpoint has starts again instead, and `note` receives a line about it.
    `safety.seconds` is wall-clock without the time between an end and the next start. Once `asked`
    is true, the run is saved after its update and Interrupted is raised.
    """
    log = Log(partial(_show, observe), again=partial(_show, again))
    status, reason, trace = Status.DONE, "", ""
    threads = torch.get_num_threads()
    saver: Saver | None = None
    try:
        saver = Saver(checkpoint, spec, device, note=note, asked=asked)
        with own_globals(torch.device(device)):
            torch.set_num_threads(spec.threads)
            reason = Training(spec, torch.device(device), safety).train(log, saver)
    except Diverged as error:
        status, reason = Status.DIVERGED, str(error)
    except OutOfTime as error:
        status, reason = Status.TIMEOUT, str(error)
    except Exception as error:  # a failed run is kept and shown, whatever the reason
        status, reason = classified(error)
        trace = traceback.format_exc()
        release(error)
    finally:
        torch.set_num_threads(threads)
    refused = saver.refused if saver else ""
    return Outcome(status, reason, _curve(log.rows), trace, log.resumed, refused)


def _curve(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table: the columns of every curve, then the metrics of the problem."""
    curve = pd.DataFrame(rows, columns=None if rows else list(CURVE_COLUMNS))
    return curve.astype({"update": "int64", "samples": "int64"})
