"""The table of trackers: a new one needs a new file, one line here, and an extra of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bdhf.experiments.errors import unknown
from bdhf.experiments.observers.mlflow import MLflow
from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.observers.several import GuardedObserver, together
from bdhf.experiments.observers.tensorboard import TensorBoard
from bdhf.experiments.observers.tracker import Tracker
from bdhf.records import InputError

#: Name -> constructor, with the results folder, the name of the ablation, and run id -> label.
#: The constructor imports the package, and does nothing else that can fail.
TRACKERS: Mapping[str, Callable[[Path, str, Mapping[str, str]], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}


@contextmanager
def tracking(
    names: Iterable[str],
    folder: Path,
    ablation: str,
    labels: Mapping[str, str],
    warn: Callable[[str], None],
) -> Iterator[Observer]:
    """The trackers of these names as one observer that never raises; closed at the end.

    `folder` is the results folder; `labels` maps run ids to words: `full_hf seed 3`. A tracker that
    fails during runs is switched off, and `warn` receives the reason in one line. Raises InputError
    on entry, before any run, for an unknown name and for a tracker without its package.
    """
    trackers = {name: _make(name, folder, ablation, labels) for name in dict.fromkeys(names)}
    guards = {
        name: GuardedObserver(f"tracker {name}", made, warn) for name, made in trackers.items()
    }
    try:
        yield together(*guards.values())
    finally:
        for name, guard in guards.items():
            guard.attempt(trackers[name].close)


def _make(name: str, folder: Path, ablation: str, labels: Mapping[str, str]) -> Tracker:
    if name not in TRACKERS:
        raise InputError([unknown("tracker", name, TRACKERS)])
    try:
        return TRACKERS[name](folder, ablation, labels)
    except ImportError as error:
        raise InputError(
            [f"tracker {name} cannot be used ({error}): `pip install 'bdhf[{name}]'` installs it"]
        ) from None
