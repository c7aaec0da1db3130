"""Convergence: updates and products to a target, and the loss at a budget.

optimizer × batch size × device, each the mean of the same two seeds, in float64 on one thread: an
unchanged algorithm reproduces the numbers. Lower is better for all. A run that misses its target
counts with the budget, and `track_target_missed` is the share of such seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

from .devices import DEVICES
from .moved import named
from .tracked import amount, count

OPTIMIZERS = ("adam", "full_hf", "block_hf", "layer_hf")
BATCHES = (250, 500, 1000)

#: Updates that a run may take.
BUDGET = 30

#: Validation loss that a run is to reach.
TARGET = 0.015

#: The quickstart's experiment on a sixteenth of the pixels.
SPEC = f"""\
schema: 1
name: convergence
problem: {{type: autoencoder, data: mnist5k, encoder: [49, 24, 8], activation: tanh, downsample: 4}}
batch: {{gradient: 1000, curvature: 0.25}}
dtype: float64
arms:
  adam: {{type: torch.Adam, lr: 3.0e-2}}
  full_hf: &hf {{type: block_hf, partition: full, lr: 0.3, damping: 1.0e-3,
                solver: {{type: cg, max_iters: 30, warm_start: 0.95}}}}
  block_hf: {{<<: *hf, partition: groups}}
  layer_hf: {{<<: *hf, partition: per_layer, lr: 0.25, damping: 1.0e-2}}
grid: {{batch.gradient: [{", ".join(map(str, BATCHES))}]}}
seeds: {{count: 2}}
budget: {{updates: {BUDGET}}}
stop: at_budget
evaluate: {{every_updates: 1}}
targets: [{{metric: val_loss, below: {TARGET}}}]
"""

#: The numbers of a run, or the reason for none.
Outcome = Mapping[str, float] | str

Results = Mapping[tuple[str, int, str], list[Outcome]]


def results() -> Results:
    """Train every optimizer at every batch size and seed; the numbers of each run."""
    outcomes: dict[tuple[str, int, str], list[Outcome]] = {}
    for device in DEVICES:
        for optimizer, batch, outcome in _runs(device):
            outcomes.setdefault((optimizer, batch, device), []).append(outcome)
    return outcomes


def _runs(device: str) -> Iterator[tuple[str, int, Outcome]]:
    for cell in named("expand")(named("variants")(named("parse")(SPEC))).cells:
        outcome = _executed(cell.run, device)
        curve = outcome.curve
        if str(outcome.status) not in ("done", "diverged") or curve.empty:
            why = f"{cell.arm}, seed {cell.seed}: {outcome.status}: {outcome.reason}"
            yield cell.arm.split()[0], cell.run.gradient_batch, why
            continue
        reached = curve[curve["val_loss"] <= TARGET]
        at = reached.iloc[0] if len(reached) else curve.iloc[-1]
        yield (
            cell.arm.split()[0],
            cell.run.gradient_batch,
            {
                "updates": float(at["update"]) if len(reached) else float(BUDGET),
                "products": float(at["products"]),
                "loss": float(curve["val_loss"].iloc[-1]),
                "missed": float(not len(reached)),
            },
        )


def _executed(run: Any, device: str) -> Any:
    """Make a run; older commits take only the seconds of its safety."""
    execute = named("execute")
    if "safety_seconds" in signature(execute).parameters:
        return execute(run, device=device, safety_seconds=600.0)
    return execute(run, device=device, safety=named("Safety")(seconds=600.0))


class Convergence:
    """The results of training."""

    param_names = ("optimizer", "batch", "device")
    params = (OPTIMIZERS, BATCHES, DEVICES)
    timeout = 600.0

    def setup_cache(self) -> Results:
        """Train once for all numbers."""
        return results()

    setup_cache.timeout = 900.0  # type: ignore[attr-defined]

    def setup(self, cache: Results, optimizer: str, batch: int, device: str) -> None:
        """Take the runs of this combination."""
        self.runs = cache[optimizer, batch, device]

    def _mean(self, of: str) -> float:
        numbers = []
        for run in self.runs:
            if isinstance(run, str):
                raise RuntimeError(run)
            numbers.append(run[of])
        return sum(numbers) / len(numbers)

    @count("updates")
    def track_updates_to_target(self, *_: object) -> float:
        """Updates until the validation loss is at the target; the budget where it never is."""
        return self._mean("updates")

    @count("products")
    def track_products_to_target(self, *_: object) -> float:
        """Products until then; those of the whole run where it never is; 0 for Adam."""
        return self._mean("products")

    @count("misses")
    def track_target_missed(self, *_: object) -> float:
        """Share of the seeds that never reached the target."""
        return self._mean("missed")

    @amount("loss")
    def track_loss_at_budget(self, *_: object) -> float:
        """Validation loss at the end of the budget."""
        return self._mean("loss")
