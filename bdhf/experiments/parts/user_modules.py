"""Import a user's own modules: from where Python finds packages, else from the spec's folder.

A spec may lie in a folder of downloads, so its folder is not searched in general. It serves only
the modules that a spec names, and the modules that these import. For imports of any other package
the folder does not exist.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

#: Modules of Python's import system: frames between an import and its finder.
_MACHINERY = frozenset(("importlib", "_frozen_importlib", "_frozen_importlib_external"))


class _Beside(MetaPathFinder):
    """Finds top-level modules in some folders: those that are named, and what these import.

    A module that another finder has, such as a built-in one, comes first.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.named: set[str] = set()
        self._served: set[str] = set()  # top-level modules that came from the folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if it is one of these; None leaves it to the other finders."""
        if path is not None or not (fullname in self.named or self._is_imported_by_own()):
            return None
        if self.elsewhere(fullname) is not None:
            return None
        spec = self.among_all(fullname)
        if spec is not None:
            self._served.add(fullname)
        return spec

    def elsewhere(self, name: str) -> ModuleSpec | None:
        """The module of another finder; namespace packages do not count."""
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, None)
            if spec is not None and spec.loader is not None:
                return spec
        return None

    def among_all(self, name: str) -> ModuleSpec | None:
        """The module as if the folders were at the end of `sys.path`."""
        spec = PathFinder.find_spec(name, [*sys.path, *self.folders])
        if spec is not None and spec.loader is None and spec.submodule_search_locations:
            # as a list: a namespace path would later search `sys.path` only
            spec.submodule_search_locations = list(spec.submodule_search_locations)
        return spec

    def _is_imported_by_own(self) -> bool:
        """Whether the import is in a module that came from the folders."""
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
    """Search the working directory and the folder of a spec for the modules that it names."""
    look_in((str(Path.cwd()), str(file.parent.resolve())))


def look_in(folders: Iterable[str]) -> None:
    """Search these folders for named modules too, after the earlier ones."""
    _BESIDE.folders += [f for f in dict.fromkeys(folders) if f not in _BESIDE.folders]
    if _BESIDE not in sys.meta_path:  # before the finder that makes a namespace of any folder
        path_finders = [i for i, finder in enumerate(sys.meta_path) if finder is PathFinder]
        sys.meta_path.insert(path_finders[0] if path_finders else len(sys.meta_path), _BESIDE)


def folders() -> tuple[str, ...]:
    """The folders that are searched for named modules; worker processes search the same."""
    return tuple(_BESIDE.folders)


def allow(module: str) -> None:
    """Allow the import of a module that a spec names, and of its package."""
    _BESIDE.named.add(module.partition(".")[0])


def located(name: str) -> ModuleSpec | None:
    """The import spec of a named module, or of one that it imports; no module is run.

    `name` is that of a top-level module.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded.__spec__
    return _BESIDE.elsewhere(name) or _BESIDE.among_all(name)
