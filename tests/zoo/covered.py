"""Which modules of torch the zoo holds."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tests.cases import Case

_ABSTRACT = "a base class"

#: Modules of torch.nn that are not in the zoo -> why.
NOT_COVERED: dict[str, str] = {
    "Module": _ABSTRACT, "Container": _ABSTRACT, "RNNBase": _ABSTRACT, "RNNCellBase": _ABSTRACT,
    "SyncBatchNorm": "needs several processes",
    "NLLLoss2d": "the former name of NLLLoss",
    **{
        name: "is the module of its name from the first forward pass on"
        for name in dir(nn)
        if name.startswith("Lazy") and name != "LazyLinear"
    },
}  # fmt: skip


def classes_of_torch() -> set[type[nn.Module]]:
    """Every class of torch.nn that is a module."""
    members = (getattr(nn, name) for name in dir(nn))
    return {kind for kind in members if isinstance(kind, type) and issubclass(kind, nn.Module)}


def kinds_in(cases: Iterable[Case]) -> set[type[nn.Module]]:
    """The classes of all modules of the models and losses."""
    owners = (owner for case in cases for owner in (case.model, case.loss_fn))
    return {
        type(module)
        for owner in owners
        if isinstance(owner, nn.Module)
        for module in owner.modules()
    }
