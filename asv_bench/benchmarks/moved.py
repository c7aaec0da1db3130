"""Names of the package in whichever commit is measured: benchmarks also run on older commits.

A name that moves to another module gets a line here, so that both commits of a comparison have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

#: Name -> the modules that have defined it, the newest first.
MODULES: Mapping[str, tuple[str, ...]] = {
    "Flops": ("bdhf.optim.torch_support.flops", "bdhf.optim.flops"),
    "Objective": ("bdhf.optim.forward.objective", "bdhf.optim.objective"),
    "Safety": ("bdhf.experiments.spec.schema", "bdhf.experiments.schema"),
    "cut": ("bdhf.optim.partitions.blocks_of", "bdhf.optim.cutting"),
    "execute": ("bdhf.experiments.run.execute", "bdhf.experiments.run"),
    "expand": ("bdhf.experiments.plan.expand", "bdhf.experiments.plan"),
    "layout_of": ("bdhf.optim.vectors.layout", "bdhf.optim.layout"),
    "parse": ("bdhf.experiments.spec.yaml_source", "bdhf.experiments.source"),
    "variants": ("bdhf.experiments.spec.load", "bdhf.experiments.spec"),
}


def named(name: str) -> Any:
    """The object with this name in the installed package. Raises ImportError if there is none.

    >>> named("expand").__module__
    'bdhf.experiments.plan.expand'
    """
    for module in MODULES[name]:
        try:
            return getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"no {name} in any of {', '.join(MODULES[name])}: add its module to MODULES")
