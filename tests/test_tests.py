"""The tests themselves: each goes to its end, and none is made of another one's parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).parent.rglob("*.py"))
}


def within(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions that it defines."""
    rest: list[ast.AST] = list(function.body)
    while rest:
        node = rest.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            rest.extend(ast.iter_child_nodes(node))


def imported(node: ast.AST) -> list[str]:
    """The dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_no_test_returns_early():
    """A case of which nothing is expected is left out where the cases are listed."""
    returns = [
        f"{path}:{node.lineno}: {function.name} returns"
        for path, module in MODULES.items()
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
        for node in within(function)
        if isinstance(node, ast.Return)
    ]

    assert returns == []


def test_no_module_imports_a_test():
    """What several tests use lies in a module of helpers, which no test is collected from."""
    imports = [
        f"{path}:{node.lineno}: imports {name}"
        for path, module in MODULES.items()
        for node in ast.walk(module)
        for name in imported(node)
        if any(part.startswith("test_") for part in name.split("."))
    ]

    assert imports == []
