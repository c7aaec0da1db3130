"""The state between updates: the last direction, the number of updates, vectors of the solver.

The next solve starts at ζ times the last solution, ζ the `warm_start` of the solver.
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

    state: MutableMapping[Tensor, Any]  # by parameter: "direction", "step", perhaps "memory"
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
        parameters = self.objective.parameters
        last = [self.state[p].get("direction") for p in parameters]
        if not self.warm_start or any(direction is None for direction in last):
            return None
        self._check_shapes(last)
        flat = flatten(last).to(parameters[0])  # the precision of the model may have changed
        if not flat.any():  # the last step was 0: a warm start saves nothing
            return None
        return self.warm_start * self.blocks.gather(flat)

    def memory(self) -> Tensor | None:
        """What the last solution has left, (k, P) in block order; None: nothing.

        Raises ModelError for the state of another model.
        """
        parameters = self.objective.parameters
        last = [self.state[p].get("memory") for p in parameters]
        if any(vectors is None for vectors in last):
            return None
        self._check_shapes([vectors[0] for vectors in last])
        flat = torch.cat([vectors.reshape(len(vectors), -1) for vectors in last], 1)
        return self.blocks.gather(flat.to(parameters[0]))

    def _check_shapes(self, last: Sequence[Tensor]) -> None:
        """Raise ModelError unless the shapes are those of the parameters."""
        parameters = self.objective.parameters
        for name, p, direction in zip(self.objective.names, parameters, last, strict=True):
            if direction.shape != p.shape:
                raise ModelError(
                    f"the state belongs to another model: the last direction of {name!r} has shape "
                    f"{tuple(direction.shape)}, the parameter {tuple(p.shape)}; load the state of "
                    "an optimizer of this model, or start without a state"
                )

    def keep(self, solution: Solution) -> None:
        """Keep the direction of an update, and count the update.

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
        parameters, updates = self.objective.parameters, self.updates + 1
        parts = split_like(self.blocks.scatter(direction), parameters)
        for parameter, part in zip(parameters, parts, strict=True):
            self.state[parameter] |= {"direction": part, "step": updates}
        if solution.memory is not None:
            vectors = split_like(self.blocks.scatter(solution.memory), parameters)
            for parameter, part in zip(parameters, vectors, strict=True):
                self.state[parameter]["memory"] = part
