"""One RunSpec in, one outcome out; whatever happens on the way is data."""

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
    """How a run ended, and everything that was measured up to then."""

    status: Status
    reason: str
    curve: pd.DataFrame
    trace: str = ""
    resumed: int = 0  # how often the curve goes on from a checkpoint
    no_checkpoint: str = ""  # why it cannot go on from one


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


def _show(observe: Callable[[Row], None], row: Row) -> None:
    """Let nobody who watches a run draw from the generators that it draws from."""
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
    tell: Callable[[str], None] = _warn,
    asked: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train once. `observe` sees every row of the curve as it is measured.

    `again` sees those that a run which goes on from a checkpoint had before.

    With a checkpoint the run goes on from where it was saved last, if it was, to the curve that it
    would have had without an end between: the same bits in every column but `seconds`.
    A run that cannot, for its own parts keep something that no checkpoint has, begins anew instead;
    `tell` is given a line that says so. `safety.seconds` are of wall-clock; the time between an end
    and the next start is not counted. Once `asked` is true the run saves itself after its update,
    and Interrupted is raised.
    """
    log = Log(partial(_show, observe), again=partial(_show, again))
    status, reason, trace = Status.DONE, "", ""
    threads = torch.get_num_threads()
    saver: Saver | None = None
    try:
        saver = Saver(checkpoint, spec, device, tell=tell, asked=asked)
        with own_globals(torch.device(device)):
            torch.set_num_threads(spec.threads)
            reason = Training(spec, torch.device(device), safety).train(log, saver)
    except Diverged as error:
        status, reason = Status.DIVERGED, str(error)
    except OutOfTime as error:
        status, reason = Status.TIMEOUT, str(error)
    except Exception as error:  # a failed run is kept and shown, whatever failed it
        status, reason = classified(error)
        trace = traceback.format_exc()
        release(error)
    finally:
        torch.set_num_threads(threads)
    refused = saver.refused if saver else ""
    return Outcome(status, reason, _curve(log.rows), trace, log.resumed, refused)


def _curve(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table whose columns are those of every curve, then the problem's metrics."""
    curve = pd.DataFrame(rows, columns=None if rows else list(CURVE_COLUMNS))
    return curve.astype({"update": "int64", "samples": "int64"})
