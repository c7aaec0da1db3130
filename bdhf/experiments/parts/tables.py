"""THE tables: the parts that a spec may name, and how a run builds them.

A new part is one file in its folder and one line here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from bdhf.experiments.parts.resolve import Nested, Resolved, Table, make
from bdhf.experiments.parts.torch_optimizers import (
    optimizer_class,
    torch_arguments,
    torch_optimizers,
)
from bdhf.nn.initialise import Glorot, Initialisation, Sparse
from bdhf.optim import (
    CG,
    EKFAC,
    GGN,
    KFAC,
    L2,
    Acceptance,
    Backtracking,
    Blend,
    BlockHessianFree,
    Cholesky,
    Constant,
    Damping,
    Direction,
    EmpiricalFisher,
    Fisher,
    Forcing,
    Full,
    FullStep,
    Groups,
    Hessian,
    LevenbergMarquardt,
    Martens,
    MartensProgress,
    Mixed,
    Momentum,
    NoPreconditioner,
    Nystrom,
    PerLayer,
    PerNeuron,
    Preconditioner,
    QuadraticMomentum,
    Random,
    Recycled,
    RelativeResidual,
    SaddleFree,
    SampleSpace,
    Solver,
    StopRule,
    Structural,
)
from bdhf.optim.curvature import OutputCurvature
from bdhf.optim.partitions import Partition
from bdhf.optim.products import MAX_BYTES, Settings
from bdhf.problems import MLP, Autoencoder, Problem, ResNet, SequenceLSTM, Transformer

PROBLEMS: Table = {
    "autoencoder": Autoencoder,
    "mlp": MLP,
    "sequence_lstm": SequenceLSTM,
    "resnet": ResNet,
    "transformer": Transformer,
}
CURVATURES: Table = {
    "ggn": GGN,
    "fisher": Fisher,
    "empirical_fisher": EmpiricalFisher,
    "hessian": Hessian,
    "mixed": Mixed,
}
PARTITIONS: Table = {
    "full": Full,
    "per_layer": PerLayer,
    "per_neuron": PerNeuron,
    "groups": Groups,
    "random": Random,
    "blend": Blend,
}
SOLVERS: Table = {
    "cg": CG,
    "sample_space": SampleSpace,
    "cholesky": Cholesky,
    "direction": Direction,
    "saddle_free": SaddleFree,
}
PRECONDITIONERS: Table = {
    "none": NoPreconditioner,
    "martens": Martens,
    "kfac": KFAC,
    "ekfac": EKFAC,
    "nystrom": Nystrom,
    "recycled": Recycled,
}
STOPS: Table = {
    "martens_progress": MartensProgress,
    "relative_residual": RelativeResidual,
    "forcing": Forcing,
}
DAMPINGS: Table = {
    "constant": Constant,
    "levenberg_marquardt": LevenbergMarquardt,
    "structural": Structural,
}
ACCEPTANCES: Table = {"full_step": FullStep, "backtracking": Backtracking}
REGULARIZATIONS: Table = {"l2": L2}
MOMENTUMS: Table = {"quadratic": QuadraticMomentum}
INITIALISATIONS: Table = {"glorot": Glorot, "sparse": Sparse}

#: The parts of `block_hf`: key of an arm -> (table, default); a default of None may be null.
PARTS: Mapping[str, tuple[Table, Any]] = {
    "curvature": (CURVATURES, "ggn"),
    "partition": (PARTITIONS, "per_layer"),
    "solver": (SOLVERS, "cg"),
    "damping": (DAMPINGS, "constant"),
    "acceptance": (ACCEPTANCES, "full_step"),
    "regularization": (REGULARIZATIONS, "l2"),
    "momentum": (MOMENTUMS, None),
}

#: Settings of the products of `block_hf`: key of an arm -> default.
PRODUCTS: Mapping[str, Any] = {
    "method": "auto", "max_bytes": MAX_BYTES, "product_dtype": None, "compile": False,
}  # fmt: skip

#: The precisions of products, by their names in a spec.
DTYPES = {None: None, "bfloat16": torch.bfloat16}

#: Parts that may be given as a number: the type and the argument that it stands for.
NUMBERS = {"damping": ("constant", "value"), "regularization": ("l2", "weight")}

#: Fields that are parts themselves: annotation -> (kind, table).
NESTED: Nested = {
    Partition: ("partition", PARTITIONS),
    Preconditioner: ("preconditioner", PRECONDITIONERS),
    StopRule: ("stop_rule", STOPS),
    Initialisation: ("init", INITIALISATIONS),
    Damping: ("damping", DAMPINGS),
}


#: The protocol of each part of `block_hf`, which a user's own part must implement.
ROLES: Mapping[str, type] = {
    "curvature": OutputCurvature,
    "partition": Partition,
    "solver": Solver,
    "damping": Damping,
    "acceptance": Acceptance,
    "regularization": L2,
    "momentum": Momentum,
}


def problem_of(resolved: Resolved) -> Problem:
    """The problem of a resolved spec."""
    return _problem_of(json.dumps(resolved))


def new_problem_of(resolved: Resolved) -> Problem:
    """`problem_of` without the cache, for one run: a user's problem may keep state."""
    problem: Problem = make(PROBLEMS, resolved, NESTED)
    return problem


@lru_cache(maxsize=64)
def _problem_of(resolved: str) -> Problem:
    """`problem_of` of JSON, cached: a grid repeats the same problems."""
    return new_problem_of(json.loads(resolved))


def optimizer_of(
    resolved: Resolved, model: nn.Module, problem: Problem, seed: int = 0
) -> torch.optim.Optimizer:
    """The optimizer of a resolved arm, on a model; `seed` seeds the draws of its curvature."""
    if resolved["type"] != "block_hf":
        cls = optimizer_class(resolved["type"], ())
        if cls is None:
            raise LookupError(f"there is no optimizer {resolved['type']!r}")
        return cls(model.parameters(), **torch_arguments(resolved))
    parts = {key: part_of(key, resolved) for key in PARTS}
    settings = product_settings(resolved)
    return BlockHessianFree(
        model, problem.loss, **parts, lr=resolved["lr"], seed=seed,
        method=settings.method, max_bytes=settings.max_bytes,
        product_dtype=settings.dtype, compile=settings.compile,
    )  # fmt: skip


def part_of(key: str, resolved: Resolved) -> Any:
    """A part of a resolved arm of `block_hf`, None for null; `key` is one of `PARTS`."""
    table, default = PARTS[key]
    part = resolved.get(key) if default is None else resolved[key]  # older runs lack newer keys
    return None if part is None else make(table, part, NESTED)


def product_settings(resolved: Resolved) -> Settings:
    """How products of a resolved arm of `block_hf` are computed."""
    method, max_bytes, dtype, compiled = (resolved[key] for key in PRODUCTS)
    return Settings(method, max_bytes, DTYPES[dtype], compiled)


def catalogue() -> dict[str, dict[str, str]]:
    """Every part that a spec may name, by kind: name -> description in one line."""
    tables = {"problem": PROBLEMS, **{kind: table for kind, (table, _) in PARTS.items()}}
    tables |= dict(NESTED.values())
    optimizers: Table = {"block_hf": BlockHessianFree, **torch_optimizers()}
    return {
        kind: {name: _first_line(part) for name, part in table.items()}
        for kind, table in {**tables, "optimizer (type of an arm)": optimizers}.items()
    }


def _first_line(part: Callable[..., Any]) -> str:
    lines = (inspect.getdoc(part) or "").strip().splitlines()
    return lines[0] if lines else ""


def uses_curvature(resolved: Resolved) -> bool:
    """Whether an arm uses the curvature batch and curvature products."""
    return bool(resolved["type"] == "block_hf")
