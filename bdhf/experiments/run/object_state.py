"""What objects hold, as text: path of an attribute -> its value, or a digest of its bits.

    held({"optimizer": optimizer})["optimizer.schedule.last_epoch"] == "7"

Two objects that were built alike, and would go on alike, hold the same.
"""

from __future__ import annotations

import types
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from bdhf.experiments.run.object_tree import BOXES, PLAIN, look_into

#: Path -> what stands there.
ObjectState = dict[str, str]

#: The ids of the boxes that something lies in, up to the next object.
_Above = tuple[int, ...]


def object_state(roots: Mapping[str, Any], saved: Container[int] = ()) -> ObjectState:
    """Everything that can be reached from the roots.

    An object is looked at once; a number, a tensor or a list of them wherever it stands, for a copy
    of what holds it may have one where the other has two. `saved` are ids of tensors whose values
    do not count.
    """
    texts, seen = (
        ObjectState(),
        dict[int, Any](),
    )  # keeps what it has seen, so that no id comes twice
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
    """Where a child stands; a module by its own name, whoever names it."""
    return child.__name__ if isinstance(child, types.ModuleType) else f"{path}{name}"


def unlike(here: ObjectState, there: ObjectState) -> str:
    """Name what differs, at most twice and the likely cause first; "" where nothing does.

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
    """Tensors differ because something else does; what is saved, because something is not."""
    is_saved = path.startswith(("state", "optimizer.state", "optimizer.param_groups"))
    return 2 * text.startswith("torch.") + is_saved
