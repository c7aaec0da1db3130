"""The state that a run resumes from, and a test that a resumed run continues alike.

A checkpoint has the state that torch exposes: `state_dict` of model and optimizer, buffers, the
streams and the global generators. A user's own parts may keep more, in an attribute or a global,
and a run resumed without it ends with other bits. So the first checkpoint is tested: a second run
is built from it, makes one update, and is compared with the run under way.
"""

from __future__ import annotations

import copy
import gc
import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bdhf.experiments.plan.user_code import own_code, own_names
from bdhf.experiments.run.checkpoint import RunState
from bdhf.experiments.run.object_state import ObjectState, object_state
from bdhf.experiments.run.process_state import undisturbed
from bdhf.experiments.run.random_streams import global_state, set_global
from bdhf.records.provenance.environment import hashes_of_words

if TYPE_CHECKING:
    from bdhf.experiments.run.training import Training

#: Counters of a run: attributes of it, and columns of its curve.
COUNTS = ("update", "samples", "products", "gradient_equivalents", "seconds")


def state_of(run: Training) -> RunState:
    """Everything that updates change, between two of them."""
    return {
        **{name: getattr(run, name) for name in COUNTS},
        "model": run.model.state_dict(),
        "buffers": _other_buffers(run.model),
        "optimizer": run.optimizer.state_dict(),
        "order": run.order.state(),
        "subset": run.subset.state(),
        "global": global_state(run.device),
    }


def restore(run: Training, state: RunState) -> None:
    """Bring a run that was just built to a saved state.

    The first update is repeated and dropped: decisions that a run makes once are made again on the
    same batch, and their time does not count in a later update.
    """
    run.step()
    for name in COUNTS:
        setattr(run, name, state[name])
    run.model.load_state_dict(state["model"])
    with torch.no_grad():
        for name, buffer in _other_buffers(run.model).items():
            buffer.copy_(state["buffers"][name])
    run.optimizer.load_state_dict(state["optimizer"])
    run.order.restore(state["order"])
    run.subset.restore(state["subset"])
    set_global(state["global"], run.device)
    for row in state["rows"]:
        run.reached.after(row)


def replay(run: Training, state: RunState) -> ObjectState:
    """The `kept` of a second run that resumes from a state and makes one update.

    Model and optimizer are built a second time; the data is shared and not changed. Raises any
    error of this.
    """
    with undisturbed(run.device):
        other = copy.copy(run)
        set_global(run.built_from, run.device)
        other.build()
        restore(other, state)
        other.step()
        after = kept(other)
        del other
        gc.collect()  # free the second model and optimizer at once
    return after


def kept(run: Training) -> ObjectState:
    """The state of optimizer and model, saved or not, then all saved state but the clock."""
    saved = state_of(run)
    del saved["seconds"]
    return object_state({"optimizer": run.optimizer, "model": run.model, "state": saved})


def unsaved(run: Training) -> ObjectState:
    """The unsaved state of optimizer and model, and the kind of each saved tensor."""
    tensors = {id(tensor) for tensor in (*run.model.parameters(), *run.model.buffers())}
    everything = object_state({"optimizer": run.optimizer, "model": run.model}, tensors)
    return {path: text for path, text in everything.items() if not _is_state(path)}


def _is_state(path: str) -> bool:
    """Whether `state_dict` of an optimizer has it; it lacks which parameters a group has."""
    in_group = path.startswith("optimizer.param_groups[") and "]['params']" not in path
    return in_group or path.startswith("optimizer.state")


def shared(run: Training) -> ObjectState:
    """What a second build of the run shares with this one: its problem and own modules."""
    names = [part.partition(":")[0] for part in own_names(run.spec)]
    code = own_code(run.spec).get("own_code", "")
    names += hashes_of_words(code)  # and their imports, also late ones
    modules = {name: sys.modules[name] for name in names if name in sys.modules}
    return object_state({"problem": run.problem, **modules})


def _other_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that `state_dict` leaves out."""
    saved = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}
