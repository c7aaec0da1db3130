"""The source of a user's own parts: which modules a part is made of, and a hash of each.

These are the module that the part is named by, its packages, and what they import of their own
top-level package or of modules that lie in the same folder, and so on. Installed packages, the
standard library, bdhf and extension modules are none of them: their versions are recorded. Files
are read and parsed, never run; one that no import statement names is not seen.
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

#: Packages whose versions are in env.json, beside that of Python.
_WITH_VERSION = frozenset(("bdhf", "torch", "numpy"))

#: Module -> hash of its source.
Hashes = Mapping[str, str]


@dataclass(frozen=True)
class ModuleSource:
    """One module of a user's own: its file, and a hash of what stands there."""

    file: Path
    digest: str


def sources(name: str) -> dict[str, ModuleSource]:
    """The modules that an own part is made of, as their files are now: module -> source."""
    walk = _Walk()
    walk.follow(name.partition(":")[0])
    return walk.sources


def remember(module: str) -> None:
    """Take the hashes of a module's sources, which is to be called before it is imported."""
    at_import(module)


@cache
def at_import(module: str) -> Hashes:
    """Module -> hash, as they were when this process first asked."""
    return {name: source.digest for name, source in sources(f"{module}:").items()}


@dataclass
class _Walk:
    """From module to module along their imports."""

    sources: dict[str, ModuleSource] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _specs: dict[str, ModuleSpec | None] = field(default_factory=dict)

    def follow(self, module: str) -> None:
        """Take in a module that is named, and all that it imports of the user's own."""
        if _is_outside(module.partition(".")[0]):
            return
        todo = [module]
        while todo:
            todo += self._take(todo.pop())

    def _take(self, module: str) -> list[str]:
        """Read a module and the packages that it lies in; what they import of the user's own."""
        wanted: list[str] = []
        parts = module.split(".")
        for size in range(1, len(parts) + 1):
            name = ".".join(parts[:size])
            spec = self._spec(name)
            if spec is None:
                break  # a name in a module, or a module that is not there
            if name not in self._seen:
                self._seen.add(name)
                wanted += self._read(name, spec)
        return wanted

    def _read(self, name: str, spec: ModuleSpec) -> list[str]:
        """Hash a module's file; what it imports of the user's own."""
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

    def _is_own(self, module: str, asker: str) -> bool:
        """Whether an import is one of the same package, or of a module in the same folder."""
        top, home = module.partition(".")[0], asker.partition(".")[0]
        if top == home:
            return True
        if _is_outside(top):
            return False
        folder = _folder(self._spec(top))
        beside_it = folder in (_folder(self._spec(home)), *map(Path, user_modules.folders()))
        return folder is not None and beside_it and not _is_installed(folder)

    def _spec(self, name: str) -> ModuleSpec | None:
        """Where a module is found; None for what is none."""
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
        except (ImportError, ValueError, AttributeError):  # a name such as `a..b`, or an odd finder
            return None


def _inside(name: str, folders: list[str]) -> ModuleSpec | None:
    """A module of a package in these folders, which need not be imported."""
    try:
        return PathFinder.find_spec(name, folders)
    except KeyError:  # a folder without `__init__`, whose place Python asks of its loaded package
        spec = ModuleSpec(name, None, is_package=True)
        inner = [Path(folder) / name.rpartition(".")[2] for folder in folders]
        spec.submodule_search_locations = [str(folder) for folder in inner if folder.is_dir()]
        return spec


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Names of modules in the import statements of a source, and names that may be modules."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's code: Python tells them at the import
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
    """The module of a `from … import`; "" where it lies above the top-level package."""
    if not node.level:
        return node.module or ""
    outer = package.split(".") if package else []
    if node.level > len(outer):
        return ""
    return ".".join([*outer[: len(outer) - node.level + 1], *filter(None, [node.module])])


def _folder(spec: ModuleSpec | None) -> Path | None:
    """The folder in which a top-level module or package lies."""
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.has_location and spec.origin else None


def _is_outside(top: str) -> bool:
    """Whether env.json has the version of a top-level module."""
    return top in sys.stdlib_module_names or top in _WITH_VERSION


def _is_installed(folder: Path) -> bool:
    return folder in _installed() or folder.name in ("site-packages", "dist-packages")


@cache
def _installed() -> frozenset[Path]:
    """Folders whose modules are installed ones."""
    named = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))
    places: Iterable[str] = (*named, *site.getsitepackages(), site.getusersitepackages())
    return frozenset(map(Path, places))
