"""An object as a text and its children by name.

Modules of libraries are not read. A user's own modules are, because a global may hold a counter.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import hashlib
import itertools
import random
import sys
import sysconfig
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdhf.optim import BlockHessianFree

#: Name of a child -> the child.
Children = Iterable[tuple[str, Any]]

#: Types that are written as text.
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, Path)

#: Containers, which may be copied together with their content.
BOXES = (dict, list, tuple, deque, set, frozenset)

#: A longer text is replaced by its digest.
_LONG = 60

#: Attributes of `BlockHessianFree`; the others are caches, and derived from the model.
_OF_BLOCK_HF = (
    "curvature", "solver", "damping", "acceptance", "regularization", "momentum", "seed",
    "settings", "defaults", "param_groups", "state",
)  # fmt: skip

#: Entries of a cache that are skipped: its own parts by module, keys, and immutable results.
_CACHE_PARTS = ("functools", "builtins")
_NO_RESULTS = (*PLAIN, *BOXES, Tensor, np.ndarray, type, types.FunctionType)

#: Numbers for iterators whose position cannot be read; each counts as unlike any other.
_UNSEEN = itertools.count()


def look_into(thing: Any) -> tuple[str, Children]:
    """The text of an object, and its children."""
    if isinstance(thing, PLAIN):
        return _short(repr(thing)), ()
    for kind, look in _KINDS:
        if isinstance(thing, kind):
            return look(thing)
    if isinstance(thing, BOXES):
        return _look_at_container(thing)
    attributes = _attributes(thing)
    if attributes is None:
        return _look_at_parts(thing)
    kind = type(thing)
    return kind.__qualname__, (*_named(attributes), *_own_class(kind))


def is_own_module(name: str) -> bool:
    """Whether a module is a user's: no library, and none of bdhf."""
    if name.partition(".")[0] in ("bdhf", "torch", "numpy"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return bool(file) and not _is_library(file)


@functools.cache
def _is_library(file: str) -> bool:
    return any(Path(file).is_relative_to(home) for home in _libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({path for name in names if (path := sysconfig.get_path(name))})


def _short(text: str) -> str:
    return text if len(text) <= _LONG else _digest(text.encode("utf-8", "surrogatepass"))


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _named(attributes: Mapping[str, Any]) -> Children:
    """Attributes; hooks without their numbers in torch."""
    for name, value in attributes.items():
        is_hooks = name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
        yield f".{name}", [*value.values()] if is_hooks and isinstance(value, dict) else value


def _own_class(kind: type) -> Children:
    """A user's class, which may hold state, and through it the module."""
    return [(f".{kind.__name__}", kind)] if is_own_module(kind.__module__) else []


def _look_at_tensor(tensor: Tensor) -> tuple[str, Children]:
    what = f"{tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad} "
    return what + _digest(_bytes_of(tensor)), _named(getattr(tensor, "__dict__", {}))


def _bytes_of(tensor: Tensor) -> Any:
    plain = tensor.detach()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    return plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _look_at_array(array: np.ndarray[Any, Any]) -> tuple[str, Children]:
    if array.dtype.hasobject:
        return f"array {array.shape}", [("", array.tolist())]
    return f"{array.dtype} {array.shape} {_digest(np.ascontiguousarray(array).data)}", ()


def _look_at_container(box: Any) -> tuple[str, Children]:
    what, own = f"{type(box).__qualname__} of {len(box)}", _named(getattr(box, "__dict__", {}))
    if isinstance(box, dict):
        keys = (k if isinstance(k, PLAIN) else i for i, k in enumerate(box))
        items = [(f"[{k!r}]", value) for k, value in zip(keys, box.values(), strict=True)]
        return what, (*items, *own)
    if isinstance(box, (set, frozenset)):
        plain = sorted(repr(entry) for entry in box if isinstance(entry, PLAIN))
        return f"{what} {_short(', '.join(plain))}", own
    return what, (*((f"[{i}]", entry) for i, entry in enumerate(box)), *own)


def _look_at_function(function: types.FunctionType) -> tuple[str, Children]:
    children = [
        *_named(vars(function)),
        (".__defaults__", function.__defaults__),
        (".__kwdefaults__", function.__kwdefaults__),
        *((f".{name}", cell) for name, cell in _closure(function)),
    ]
    if is_own_module(function.__module__ or ""):
        children.append(("", sys.modules[function.__module__]))
    return function.__qualname__, children


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _look_at_module(module: types.ModuleType) -> tuple[str, Children]:
    is_own = is_own_module(module.__name__)
    return module.__name__, _named(_public(vars(module))) if is_own else ()


def _look_at_class(kind: type) -> tuple[str, Children]:
    if not is_own_module(kind.__module__):
        return kind.__qualname__, ()
    return kind.__qualname__, (*_named(_public(vars(kind))), ("", sys.modules[kind.__module__]))


def _public(names: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names that Python itself adds."""
    return {name: value for name, value in names.items() if not name.startswith("__")}


def _attributes(thing: Any) -> dict[str, Any] | None:
    """Attributes by name, also in slots; None for an object of C, which has none."""
    if isinstance(thing, torch.optim.Optimizer):
        is_ours = isinstance(thing, BlockHessianFree)
        own = {k: v for k, v in vars(thing).items() if not is_ours or k in _OF_BLOCK_HF}
        loaded = "differentiable"  # load_state_dict may add it
        return own | {"defaults": {k: v for k, v in thing.defaults.items() if k != loaded}}
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind)]
    if not slots and not hasattr(thing, "__dict__"):
        return None
    inner = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return inner | dict(getattr(thing, "__dict__", {}))


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _look_at_parts(thing: Any) -> tuple[str, Children]:
    """An object of C, by the parts that a copy is made of."""
    kind = type(thing).__qualname__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # copying iterators is deprecated
            made_of = thing.__reduce_ex__(4)
    except Exception:  # it cannot be copied
        return f"{kind} {next(_UNSEEN)}" if isinstance(thing, Iterator) else kind, ()
    return kind, [("", [*made_of])] if isinstance(made_of, tuple) else ()


def _by(state: Callable[[Any], Any]) -> Callable[[Any], tuple[str, Children]]:
    """Read an object by its state."""
    return lambda thing: (type(thing).__qualname__, [(".state", state(thing))])


def _look_at_cache(function: Any) -> tuple[str, Children]:
    """A function with a cache: the cached results that may change, such as generators."""
    held = gc.get_referents(function)
    held += [entry for inner in held if isinstance(inner, dict) for entry in inner.values()]
    made = (e for e in held if type(e).__module__ not in _CACHE_PARTS)
    made = (e for e in made if not isinstance(e, _NO_RESULTS))
    return function.__name__, [(f".cache[{i}]", entry) for i, entry in enumerate(made)]


def _nothing(thing: Any) -> tuple[str, Children]:
    return type(thing).__qualname__, ()


#: Types that are not read by their attributes.
_KINDS: tuple[tuple[Any, Callable[[Any], tuple[str, Children]]], ...] = (
    (Tensor, _look_at_tensor),
    (np.ndarray, _look_at_array),
    (torch.Generator, _by(torch.Generator.get_state)),
    (random.SystemRandom, _look_at_parts),
    (random.Random, _by(random.Random.getstate)),
    (np.random.RandomState, _by(lambda rng: rng.get_state(legacy=False))),
    (np.random.Generator, _by(lambda rng: rng.bit_generator)),
    (np.random.BitGenerator, _by(lambda bits: bits.state)),
    (types.ModuleType, _look_at_module),
    (types.FunctionType, _look_at_function),
    (types.MethodType, lambda m: (m.__name__, [("", m.__func__), (".__self__", m.__self__)])),
    ((staticmethod, classmethod), lambda m: ("", [("", m.__func__)])),
    (property, lambda p: ("", [("", p.fget)])),
    (functools._lru_cache_wrapper, _look_at_cache),
    (contextvars.ContextVar, lambda v: ("", [(".value", v.get(None))])),
    (functools.partial, lambda p: ("partial", [("", (p.func, p.args, p.keywords))])),
    (type, _look_at_class),
    ((weakref.ref, weakref.WeakKeyDictionary, weakref.WeakValueDictionary), _nothing),
)
