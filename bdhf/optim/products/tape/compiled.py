"""J v along a tape through torch.compile: the operators of a route as one compiled program.

The program takes tangents and the values that its rules read, so one program serves all updates in
which the same operators run on the same shapes. Torch caches what it compiled on disk, for later
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bdhf.optim.products.request import Workspace
from bdhf.optim.products.tape.calls import OperatorCall
from bdhf.optim.products.tape.route import Route, route
from bdhf.optim.products.tape.tape import Tape, TapeEntry
from bdhf.optim.torch_support.eager import compiler_runs

Program = Callable[[list[Tensor], list[Tensor]], Tensor]


class Compiled:
    """J v by compiled routes, which `workspace` keeps from update to update."""

    def __init__(self, tape: Tape, target: int, workspace: Workspace, key: Hashable) -> None:
        self._tape, self._target = tape, target
        self._kept, self._key = workspace.kept, key
        self._made: dict[tuple[int, ...], tuple[Program, list[Tensor]] | None] = {}

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Run the program for these parameters; the first time, compile it.

        Under a mode that intercepts operators, such as a FLOP counter, they run one by one.
        """
        if _get_current_dispatch_mode() is not None:
            return route(self._tape, tuple(tangents), self._target)(dict(tangents))
        sources, vectors = tuple(tangents), [tangent.contiguous() for tangent in tangents.values()]
        if sources not in self._made:
            self._made[sources] = self._make(sources, vectors)
        made = self._made[sources]
        if made is None:  # no path from these parameters to the target
            return None
        compiled, values = made
        with compiler_runs():
            return compiled(vectors, values)

    def _make(
        self, sources: tuple[int, ...], vectors: list[Tensor]
    ) -> tuple[Program, list[Tensor]] | None:
        """A new or cached program, and its values in this update."""
        path = route(self._tape, sources, self._target)
        if not path.entries:
            return None
        entries = tuple(replace(entry, call=entry.call.slim()) for entry in path.entries)
        values, program, structure = _lifted(replace(path, entries=entries), sources)
        key = ("compiled", self._key, sources, structure)
        if key not in self._kept:
            self._kept[key] = torch.compile(make_fx(program)(vectors, values), dynamic=False)
        return self._kept[key], values


def _lifted(path: Route, sources: tuple[int, ...]) -> tuple[list[Tensor], Program, Hashable]:
    """The values that a route reads, each once, the route as a function of them, and its structure.

    The structure is everything else that the function depends on: equal for equal functions.
    """
    values: list[Tensor] = []
    indices: dict[int, int] = {}
    recipes: list[tuple[TapeEntry, list[Any], TreeSpec]] = []
    for entry in path.entries:
        call = entry.call
        leaves, spec = tree_flatten((call.args, dict(call.kwargs), call.result))
        recipe = []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                if id(leaf) not in indices:
                    indices[id(leaf)] = len(values)
                    values.append(leaf.detach())
                leaf = _Index(indices[id(leaf)])
            recipe.append(leaf)
        recipes.append((entry, recipe, spec))

    def program(tangents: list[Tensor], values: list[Tensor]) -> Tensor:
        entries = []
        for entry, recipe, spec in recipes:
            leaves = [values[leaf.index] if isinstance(leaf, _Index) else leaf for leaf in recipe]
            args, kwargs, result = tree_unflatten(leaves, spec)
            entries.append(replace(entry, call=OperatorCall(entry.call.func, args, kwargs, result)))
        tangent = replace(path, entries=tuple(entries))(dict(zip(sources, tangents, strict=True)))
        assert tangent is not None  # every entry leads to the target
        return tangent

    structure = tuple(
        (entry.call.func, entry.reads, entry.makes, tuple(recipe), spec)
        for entry, recipe, spec in recipes
    )
    return values, program, structure


@dataclass(frozen=True)
class _Index:
    """Replaces the value of this index."""

    index: int
