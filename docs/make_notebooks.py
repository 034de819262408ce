"""Runs the notebooks and stores them with their outputs: `python docs/make_notebooks.py [NAME ...]`.

Pictures are reduced to screen size and 256 colours, so that a notebook stays small enough for a repository page.
"""

import base64
import hashlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
WIDTH = 900
"""Largest width of a stored picture, in pixels."""


def code_digest(notebook: Any) -> str:
    """A digest of the code, which tells whether the stored outputs are of the code beside them."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def run_notebook(notebook: Any, folder: Path) -> None:
    """Runs a notebook from top to bottom, in a folder."""
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


def shrink(picture: str) -> str:
    """A PNG in base64, made smaller."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((WIDTH, 4 * WIDTH))
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def tidy(notebook: Any) -> None:
    """Shrinks pictures, and removes temporary folders, bold type and the times of cells."""
    notebook.metadata["segsweep"] = {"code": code_digest(notebook)}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            texts = output if output.output_type == "stream" else output.get("data", {})
            for kind in texts.keys() & {"text", "text/plain", "text/html"}:
                texts[kind] = re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+/?|\x1b\[[\d;]*m", "", texts[kind])
            if "image/png" in texts:
                texts["image/png"] = shrink(texts["image/png"])


def main() -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            run_notebook(notebook, Path(folder))
        tidy(notebook)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
