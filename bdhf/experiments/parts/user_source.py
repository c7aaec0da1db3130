"""The source of a user's own parts: the modules of a part, with a hash of each.

These are the module of the part, its packages, the modules that they import from their own
top-level package or from the same folder, and so on. Installed packages, the standard library, bdhf
and extension modules are left out, because their versions are recorded. Files are read and parsed,
never run; only import statements count.
"""

from __future__ import annotations

import ast
import hashlib
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from bdhf.experiments.parts import user_modules

#: Hexadecimal digits of a module's hash.
_DIGITS = 12

#: Packages whose versions are in env.json, like that of Python.
_WITH_VERSION = frozenset(("bdhf", "torch", "numpy"))

#: Module -> hash of its source.
Hashes = Mapping[str, str]


@dataclass(frozen=True)
class ModuleSource:
    """One of a user's modules: its file, and a hash of the content."""

    file: Path
    digest: str


def sources(name: str) -> dict[str, ModuleSource]:
    """The modules of an own part, as their files are now: module -> source."""
    walk = _Walk()
    walk.follow(name.partition(":")[0])
    return walk.sources


def remember(module: str) -> None:
    """Hash the sources of a module; call this before its import."""
    at_import(module)


@cache
def at_import(module: str) -> Hashes:
    """Module -> hash, at the first call in this process."""
    return {name: source.digest for name, source in sources(f"{module}:").items()}


@dataclass
class _Walk:
    """From module to module along their imports."""

    sources: dict[str, ModuleSource] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _specs: dict[str, ModuleSpec | None] = field(default_factory=dict)

    def follow(self, module: str) -> None:
        """Add a named module, and all of the user's modules that it imports."""
        if _is_outside(module.partition(".")[0]):
            return
        todo = [module]
        while todo:
            todo += self._take(todo.pop())

    def _take(self, module: str) -> list[str]:
        """Read a module and its packages; return the user's modules that they import."""
        wanted: list[str] = []
        parts = module.split(".")
        for size in range(1, len(parts) + 1):
            name = ".".join(parts[:size])
            spec = self._spec(name)
            if spec is None:
                break  # a name in a module, or a missing module
            if name not in self._seen:
                self._seen.add(name)
                wanted += self._read(name, spec)
        return wanted

    def _read(self, name: str, spec: ModuleSpec) -> list[str]:
        """Hash a module's file; return the user's modules that it imports."""
        file = Path(spec.origin) if spec.has_location and spec.origin else None
        if file is None or file.suffix != ".py":
            return []
        try:
            content = file.read_bytes().replace(b"\r\n", b"\n")
        except OSError:
            return []
        self.sources[name] = ModuleSource(file, hashlib.sha256(content).hexdigest()[:_DIGITS])
        is_package = spec.submodule_search_locations is not None
        package = name if is_package else name.rpartition(".")[0]
        return [other for other in _imports(content, package) if self._is_own(other, name)]

    def _is_own(self, module: str, importer: str) -> bool:
        """Whether an import is from the same package, or of a module in the same folder."""
        top, home = module.partition(".")[0], importer.partition(".")[0]
        if top == home:
            return True
        if _is_outside(top):
            return False
        folder = _folder(self._spec(top))
        beside_it = folder in (_folder(self._spec(home)), *map(Path, user_modules.folders()))
        return folder is not None and beside_it and not _is_installed(folder)

    def _spec(self, name: str) -> ModuleSpec | None:
        """The import spec of a module, or None."""
        if name not in self._specs:
            self._specs[name] = self._found(name)
        return self._specs[name]

    def _found(self, name: str) -> ModuleSpec | None:
        package = name.rpartition(".")[0]
        try:
            if not package:
                return user_modules.located(name)
            outer = self._spec(package)
            within = outer.submodule_search_locations if outer else None
            return _inside(name, list(within)) if within else None
        except (ImportError, ValueError, AttributeError):  # a name such as `a..b`, a faulty finder
            return None


def _inside(name: str, folders: list[str]) -> ModuleSpec | None:
    """A module of a package in these folders, without an import of the package."""
    try:
        return PathFinder.find_spec(name, folders)
    except KeyError:  # a folder without `__init__`: Python needs its package loaded
        spec = ModuleSpec(name, None, is_package=True)
        inner = [Path(folder) / name.rpartition(".")[2] for folder in folders]
        spec.submodule_search_locations = [str(folder) for folder in inner if folder.is_dir()]
        return spec


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The modules in the import statements of a source, and the names that may be modules."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's code: Python shows them at the import
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base:
                yield base
                yield from (f"{base}.{a.name}" for a in node.names if a.name != "*")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module of a `from … import`; "" if it is above the top-level package."""
    if not node.level:
        return node.module or ""
    outer = package.split(".") if package else []
    if node.level > len(outer):
        return ""
    return ".".join([*outer[: len(outer) - node.level + 1], *filter(None, [node.module])])


def _folder(spec: ModuleSpec | None) -> Path | None:
    """The folder of a top-level module or package."""
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.has_location and spec.origin else None


def _is_outside(top: str) -> bool:
    """Whether env.json records the version of a top-level module."""
    return top in sys.stdlib_module_names or top in _WITH_VERSION


def _is_installed(folder: Path) -> bool:
    return folder in _installed() or folder.name in ("site-packages", "dist-packages")


@cache
def _installed() -> frozenset[Path]:
    """The folders of installed modules."""
    named = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))
    folders: Iterable[str] = (*named, *site.getsitepackages(), site.getusersitepackages())
    return frozenset(map(Path, folders))
