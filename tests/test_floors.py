"""Modules form floors: each imports only from floors below, and no private names."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

SRC = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path for path in SRC.rglob("*.py")
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yields every import of our modules in a file, also inside functions: module and name."""
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


def room(module: str) -> str:
    """The room of a module: segsweep.data.crops is in data."""
    top, _, below = module.partition(".")
    return below.partition(".")[0] if top == "segsweep" and below else top


@pytest.fixture(scope="module")
def found() -> dict[str, list[tuple[str, str]]]:
    return {module: list(imports(path)) for module, path in MODULES.items()}


def test_no_modules_import_each_other(found):
    graph = {module: {other for other, _ in names} for module, names in found.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES) > 50


def test_every_room_imports_only_from_floors_below_its_own(found):
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = text.partition("| floor |")[2].partition("\n\n")[0].splitlines()[2:]
    floors = {room: number for number, row in enumerate(rows) for room in re.findall(r"`(\w+)`", row.split("|")[1])}
    between = {(room(module), room(other)) for module, names in found.items() for other, _ in names}
    assert {name for pair in between for name in pair} <= set(floors)
    wrong = [(above, below) for above, below in between if above != below and floors[above] >= floors[below]]
    assert wrong == []


def test_no_private_name_is_imported_from_another_module(found):
    private = [(module, *name) for module, names in found.items() for name in names if name[1].startswith("_")]
    assert private == []
