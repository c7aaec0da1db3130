"""The state of objects as text: path of an attribute -> its value, or a digest of its bits.

    object_state({"optimizer": optimizer})["optimizer.schedule.last_epoch"] == "7"

Two objects that were built alike, and would continue alike, have the same state.
"""

from __future__ import annotations

import types
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from bdhf.experiments.run.object_tree import BOXES, PLAIN, look_into

#: Path -> value or digest.
ObjectState = dict[str, str]

#: The ids of the containers around a value, up to the next object.
_Above = tuple[int, ...]


def object_state(roots: Mapping[str, Any], saved: Container[int] = ()) -> ObjectState:
    """Everything that can be reached from the roots.

    An object is read once. Numbers, tensors and lists of them are read at every path, because a
    copy may share one where the original has two. `saved` are ids of tensors whose values are
    ignored.
    """
    texts, seen = (
        ObjectState(),
        dict[int, Any](),
    )  # keeps the objects alive, so that no id is used twice
    left: list[tuple[str, Any, _Above]] = []
    left += [(name, root, ()) for name, root in [*roots.items()][::-1]]
    while left:
        path, thing, above = left.pop()
        if not isinstance(thing, PLAIN):
            if id(thing) in (above if isinstance(thing, BOXES) else seen):
                continue
            if not isinstance(thing, (*BOXES, Tensor, np.ndarray)):
                seen[id(thing)] = thing
        text, children = look_into(thing)
        if text:
            texts[path] = text.rpartition(" ")[0] if id(thing) in saved else text
        within = (*above, id(thing)) if isinstance(thing, BOXES) else ()
        left += [(_path(path, name, child), child, within) for name, child in children][::-1]
    return texts


def _path(path: str, name: str, child: Any) -> str:
    """The path of a child; of a module its own name."""
    return child.__name__ if isinstance(child, types.ModuleType) else f"{path}{name}"


def unlike(here: ObjectState, there: ObjectState) -> str:
    """Name the differences, at most two and the likely cause first; "" if there is none.

    >>> unlike({"a.made": "5", "a.lr": "1"}, {"a.made": "2", "a.lr": "1"})
    'a.made (5 and 2)'
    """
    paths = [p for p in dict.fromkeys((*here, *there)) if here.get(p) != there.get(p)]
    ranks = {p: _is_effect(p, here.get(p) or there[p]) for p in paths}
    causes = [p for p in paths if ranks[p] == min(ranks.values())][:2]
    more = f" and {len(paths) - len(causes)} more" if len(paths) > len(causes) else ""
    return ", ".join(_differs(p, here, there) for p in causes) + more


def _differs(path: str, here: ObjectState, there: ObjectState) -> str:
    text_here, text_there = here.get(path, "nothing"), there.get(path, "nothing")
    return path if text_here.startswith("torch.") else f"{path} ({text_here} and {text_there})"


def _is_effect(path: str, text: str) -> int:
    """Rank tensors after other values, and saved state after unsaved state: these are causes."""
    is_saved = path.startswith(("state", "optimizer.state", "optimizer.param_groups"))
    return 2 * text.startswith("torch.") + is_saved
