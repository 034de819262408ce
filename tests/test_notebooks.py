"""Notebooks run from top to bottom, and are stored without outputs."""

# nbformat and nbclient take seconds to import, so only the tests that need them do.

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@every_notebook
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = read(path)
    for number, cell in enumerate(code_cells(notebook)):
        assert cell.outputs == [], f"code cell {number} has outputs"
        assert cell.execution_count is None, f"code cell {number} has an execution count"


@pytest.mark.slow
@every_notebook
def test_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # writes nothing to the home folder
    work = tmp_path / "work"
    work.mkdir()
    from nbclient import NotebookClient

    notebook = read(path)
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    warned = [
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and "Warning" in output.text
    ]
    assert warned == []
    shown = [output for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    assert any("image/png" in output.data for output in shown), "no figure is shown"
