"""Notebooks are stored with the outputs of their present code, small, and run from top to bottom."""

# nbformat and nbclient take seconds to import, so only the tests that need them do.

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 1_000_000
"""Bytes; repository pages show a larger notebook late or not at all."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def making() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        import make_notebooks

        yield make_notebooks
        sys.modules.pop("make_notebooks")


def read(path: Path) -> Any:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> list[Image.Image]:
    found = [
        output.data.get("image/png") for cell in code_cells(notebook) for output in cell.outputs if "data" in output
    ]
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found if content]


def require_good_outputs(notebook: Any) -> None:
    """No error, no warning, and a picture."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.output_type == "stream" and "Warning" in output.text]
    assert pictures(notebook), "no figure is shown"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@every_notebook
def test_the_stored_outputs_are_of_the_code_beside_them(path: Path, making: Any) -> None:
    notebook = read(path)
    stale = "run python docs/make_notebooks.py, which runs the notebooks and stores them with their outputs"
    assert notebook.metadata.get("segsweep", {}).get("code") == making.code_digest(notebook), stale
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), stale
    require_good_outputs(notebook)


@every_notebook
def test_a_stored_notebook_is_small_and_names_no_folder_of_a_machine(path: Path, making: Any) -> None:
    assert path.stat().st_size < LARGEST
    notebook = read(path)
    assert all(picture.width <= making.WIDTH for picture in pictures(notebook))
    text = str([output for cell in code_cells(notebook) for output in cell.outputs])
    text = re.sub(r"[\w+/=]{200,}", "", text)  # pictures
    assert not [folder for folder in ("/tmp", "/home", "/root", str(ROOT)) if folder in text]


@pytest.mark.slow
@every_notebook
def test_notebook_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, making: Any
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # writes nothing to the home folder
    work = tmp_path / "work"
    work.mkdir()
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    making.run_notebook(notebook, work)
    require_good_outputs(notebook)
