"""Where a user's own modules are found: where Python finds packages, else beside the spec.

A spec may be a download, in a folder full of others. So its folder is no place for modules at
large: only those are found there that a spec names, and what these import themselves. Any other
package that tries whether a module is installed gets the answer that it got without the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

#: Modules of Python's own import system, which stand between an import and its finder.
_MACHINERY = frozenset(("importlib", "_frozen_importlib", "_frozen_importlib_external"))


class _Beside(MetaPathFinder):
    """Finds top-level modules in some folders: those that are named, and what these ask for.

    A module that is found elsewhere, built-in ones first, is that one.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.named: set[str] = set()
        self._served: set[str] = set()  # top-level modules that came from the folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, where it is one of these; None leaves it to the other finders."""
        if path is not None or not (fullname in self.named or self._is_asked_by_own()):
            return None
        if self.elsewhere(fullname) is not None:
            return None
        spec = self.among_all(fullname)
        if spec is not None:
            self._served.add(fullname)
        return spec

    def elsewhere(self, name: str) -> ModuleSpec | None:
        """The module that the other finders find; a namespace yields to a module proper."""
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, None)
            if spec is not None and spec.loader is not None:
                return spec
        return None

    def among_all(self, name: str) -> ModuleSpec | None:
        """The module as if the folders stood at the end of `sys.path`."""
        spec = PathFinder.find_spec(name, [*sys.path, *self.folders])
        if spec is not None and spec.loader is None and spec.submodule_search_locations:
            # as a list: a namespace path would look itself up in `sys.path` alone later on
            spec.submodule_search_locations = list(spec.submodule_search_locations)
        return spec

    def _is_asked_by_own(self) -> bool:
        """Whether the import stands in a module that came from the folders."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            top = name.partition(".")[0]
            if name != __name__ and top not in _MACHINERY:
                return top in self._served
            frame = frame.f_back
        return False


_BESIDE = _Beside()


def look_beside(file: Path) -> None:
    """Have the modules that a spec names found in the working directory and beside its file."""
    look_in((str(Path.cwd()), str(file.parent.resolve())))


def look_in(folders: Iterable[str]) -> None:
    """Have modules that are named found in these folders too, behind those of before."""
    _BESIDE.folders += [f for f in dict.fromkeys(folders) if f not in _BESIDE.folders]
    if _BESIDE not in sys.meta_path:  # before the finder that takes any folder for a namespace
        places = [i for i, finder in enumerate(sys.meta_path) if finder is PathFinder]
        sys.meta_path.insert(places[0] if places else len(sys.meta_path), _BESIDE)


def folders() -> tuple[str, ...]:
    """Where modules that are named are looked for: a worker process looks in the same folders."""
    return tuple(_BESIDE.folders)


def allow(module: str) -> None:
    """Have a module found that a spec names, and its package."""
    _BESIDE.named.add(module.partition(".")[0])


def located(name: str) -> ModuleSpec | None:
    """Where a named module, or one that it imports, would come from; nothing is run.

    `name` is that of a top-level module.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded.__spec__
    return _BESIDE.elsewhere(name) or _BESIDE.among_all(name)
