"""The state between updates: last direction and step, and what solver and stop rule keep.

The next solve starts at ζ times the last solution, ζ the `warm_start` of the solver. The step is
kept for momentum alone.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.objective import Objective
from bdhf.optim.solvers import Solution, Stop
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import flatten, split_like


@dataclass(frozen=True)
class Carried:
    """A view on the state of an optimizer, which torch saves, loads and copies."""

    state: MutableMapping[Tensor, Any]  # by parameter, which torch keeps: see `keep`
    objective: Objective
    blocks: Blocks
    warm_start: float
    seed: int

    @property
    def updates(self) -> int:
        """Updates so far."""
        return int(self.state[self.objective.parameters[0]].get("step", 0))

    @property
    def draws(self) -> int:
        """The seed of the draws of the next update."""
        return (self.seed + self.updates * 0x9E3779B97F4A7C15) % 2**63

    def start(self) -> Tensor | None:
        """The warm start, (P,) in block order; None at the first update or when it is off.

        Raises ModelError for the state of another model.
        """
        last = self._vector("direction") if self.warm_start else None
        if last is None or not last.any():  # the last step was 0: a warm start saves nothing
            return None
        return self.warm_start * last

    def last_step(self) -> Tensor | None:
        """θ_k - θ_{k-1}, (P,) in block order; None if the last update did not keep it.

        Raises ModelError for the state of another model.
        """
        return self._vector("last_step")

    def memory(self) -> Tensor | None:
        """What the last solution has left, (k, P) in block order; None: nothing.

        Raises ModelError for the state of another model.
        """
        parameters = self.objective.parameters
        last = [self.state[p].get("memory") for p in parameters]
        if any(vectors is None for vectors in last):
            return None
        self._check_shapes("memory", [vectors[0] for vectors in last])
        flat = torch.cat([vectors.reshape(len(vectors), -1) for vectors in last], 1)
        return self.blocks.gather(flat.to(parameters[0]))

    def _vector(self, key: str) -> Tensor | None:
        """A vector of the state, (P,) in block order."""
        parameters = self.objective.parameters
        last = [self.state[p].get(key) for p in parameters]
        if any(part is None for part in last):
            return None
        self._check_shapes(key, last)
        flat = flatten(last).to(parameters[0])  # the precision of the model may have changed
        return self.blocks.gather(flat)

    def _check_shapes(self, key: str, last: Sequence[Tensor]) -> None:
        """Raise ModelError unless the shapes are those of the parameters."""
        parameters = self.objective.parameters
        for name, p, part in zip(self.objective.names, parameters, last, strict=True):
            if part.shape != p.shape:
                raise ModelError(
                    f"the state belongs to another model: the {key.replace('_', ' ')} of {name!r} "
                    f"has shape {tuple(part.shape)}, the parameter {tuple(p.shape)}; load the "
                    "state of an optimizer of this model, or start without a state"
                )

    def stopping(self) -> Tensor | None:
        """The numbers of the stop rule at the last update, (rows, k); None if it kept none."""
        first = self.objective.parameters[0]
        numbers: Tensor | None = self.state[first].get("stopping")
        return None if numbers is None else numbers.to(first)

    def keep(self, solution: Solution, step: Tensor | None) -> None:
        """Keep direction, step (P,) in block order, and a stop rule's numbers; count the update.

        A block that met negative curvature before its first step starts cold: a warm start alone
        would shrink from update to update, and never leave the saddle.
        """
        stuck = [
            stop == Stop.NEGATIVE_CURVATURE and not iterations
            for stop, iterations in zip(solution.stop, solution.iterations, strict=True)
        ]
        direction = solution.x.clone()
        if any(stuck) and self.warm_start:
            self.blocks.zero_(torch.tensor(stuck, device=direction.device), direction)
        updates, steps = self.updates + 1, self._parts(step)
        for parameter, part in self._parts(direction).items():
            self.state[parameter] |= {"direction": part, "step": updates}
            self.state[parameter].pop("last_step", None)  # of an optimizer with momentum
            self.state[parameter] |= {"last_step": steps[parameter]} if steps else {}
        first = self.objective.parameters[0]
        self.state[first].pop("stopping", None)
        if solution.stopping is not None:  # in the dtype to which torch casts a loaded state
            self.state[first]["stopping"] = solution.stopping.to(first)
        if solution.memory is not None:
            vectors = split_like(self.blocks.scatter(solution.memory), self.objective.parameters)
            for parameter, part in zip(self.objective.parameters, vectors, strict=True):
                self.state[parameter]["memory"] = part

    def _parts(self, vector: Tensor | None) -> dict[Tensor, Tensor]:
        """A vector in block order, cut into the shapes of the parameters; empty for None."""
        if vector is None:
            return {}
        parameters = self.objective.parameters
        parts = split_like(self.blocks.scatter(vector), parameters)
        return dict(zip(parameters, parts, strict=True))
