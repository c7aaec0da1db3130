"""Check the problem and the optimizers of a spec, and write out all their arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.parts.meta_models import block_sizes, meta_model
from bdhf.experiments.parts.resolve import Resolved, make, refusals, resolve
from bdhf.experiments.parts.tables import (
    DTYPES,
    NESTED,
    NUMBERS,
    PARTITIONS,
    PARTS,
    PROBLEMS,
    PRODUCTS,
    ROLES,
)
from bdhf.experiments.parts.torch_optimizers import (
    optimizer_class,
    resolve_optimizer,
    torch_optimizers,
)
from bdhf.optim.products import METHODS
from bdhf.problems import Problem


def resolve_problem(data: Any) -> Resolved:
    """A problem with all its arguments. Raises Faults."""
    return resolve("problem", PROBLEMS, data, ("problem",), NESTED, role=Problem)


def resolve_arm(name: str, data: Any, problem: Problem) -> Resolved:
    """An optimizer with all its parts, checked against the problem. Raises Faults."""
    path: Keys = ("arms", name)
    kind = data.get("type") if isinstance(data, dict) else data
    data = data if isinstance(data, dict) else {"type": kind}
    if kind == "block_hf":
        return _resolve_block_hf(data, problem, path)
    cls = optimizer_class(kind, path)
    if cls is not None:
        return resolve_optimizer(
            cls, data, path, lambda **k: cls(meta_model(problem).parameters(), **k)
        )
    names = ["block_hf", *torch_optimizers()]
    at = (*path, "type") if "type" in data and isinstance(data["type"], str) else path
    raise Faults(Fault(at, unknown("optimizer", kind, names)))


def _resolve_block_hf(data: dict[str, Any], problem: Problem, path: Keys) -> Resolved:
    keys = [*PARTS, "lr", *PRODUCTS]
    faults = [
        Fault((*path, key), unknown("key of block_hf", key, keys), at_key=True)
        for key in data
        if key != "type" and key not in keys
    ]
    resolved: Resolved = {"type": "block_hf"}
    for key, (table, default) in PARTS.items():
        wanted, where = data.get(key, default), (*path, key)
        if wanted is None and default is None:
            resolved[key] = None
            continue
        try:
            spell = partial(_spelt, problem)
            resolved[key] = resolve(key, table, wanted, where, NESTED, spell, ROLES[key])
        except Faults as error:
            faults += error.faults
    lr = data.get("lr", 0.5)
    number = isinstance(lr, (int, float)) and not isinstance(lr, bool)
    if not number or not (lr > 0 and math.isfinite(lr)):
        faults.append(Fault((*path, "lr"), f"lr must be a number above 0; got {lr!r}"))
    products = {key: data.get(key, default) for key, default in PRODUCTS.items()}
    faults += [Fault((*path, key), text) for key, text in _wrong_products(products).items()]
    if faults:
        raise Faults(*faults)
    _check_partition(resolved["partition"], problem, (*path, "partition"))
    return {**resolved, "lr": lr, **products}


def _wrong_products(products: Mapping[str, Any]) -> dict[str, str]:
    """Faults of the settings of products: key -> message."""
    method, limit = products["method"], products["max_bytes"]
    dtype, compiled = products["product_dtype"], products["compile"]
    wrong = {}
    if not isinstance(method, str) or method not in ("auto", *METHODS):
        wrong["method"] = unknown("method", method, ["auto", *METHODS])
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        wrong["max_bytes"] = f"max_bytes must be a whole number above 0; got {limit!r}"
    if not isinstance(dtype, (str, type(None))) or dtype not in DTYPES:
        wrong["product_dtype"] = unknown("product_dtype", dtype, ["bfloat16"])
    if not isinstance(compiled, bool):
        wrong["compile"] = f"compile must be true or false; got {compiled!r}"
    return wrong


def _spelt(problem: Problem, kind: str, value: Any) -> Any:
    """Expand a number to constant damping or L2, and `groups` to the blocks of the problem."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and kind in NUMBERS:
        name, argument = NUMBERS[kind]
        return {"type": name, argument: value}
    if kind == "partition" and value in ("groups", {"type": "groups"}):
        return {"type": "groups", "blocks": [list(block) for block in problem.blocks]}
    return value


def _check_partition(resolved: Resolved, problem: Problem, path: Keys) -> None:
    """Try nested partitions, then the partition itself, on the meta model of the problem."""
    for key, value in resolved.items():
        if isinstance(value, dict) and value.get("type") in PARTITIONS:
            _check_partition(value, problem, (*path, key))
    partition = make(PARTITIONS, resolved, NESTED)
    sizes = block_sizes(partition, problem, refusals(resolved["type"]))
    if isinstance(sizes, str):
        raise Faults(Fault(path, sizes))
