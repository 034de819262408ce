"""Modules form floors: each imports from those below it, and nobody's private names."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

from support import ROOT

SRC = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path for path in SRC.rglob("*.py")
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every module of ours that a file imports, also inside a function, with the name that it takes from it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES or node.module in MODULES:
                    yield (inner if inner in MODULES else node.module), alias.name


IMPORTS = {module: list(imports(path)) for module, path in MODULES.items()}


def test_no_modules_import_each_other():
    graph = {module: {other for other, _ in found} for module, found in IMPORTS.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES) > 50


def test_sweeps_and_the_hydra_plugin_do_not_know_the_command_line():
    below = [module for module in MODULES if module.startswith(("segsweep.sweeps", "hydra_plugins"))]
    assert len(below) > 10
    assert [module for module in below if any(other.startswith("segsweep.cli") for other, _ in IMPORTS[module])] == []


def test_no_private_name_is_imported_from_another_module():
    private = [(module, *found) for module, names in IMPORTS.items() for found in names if found[1].startswith("_")]
    assert private == []
