"""What every section of the page is made of: tables, and pictures that may be missing."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from replication import prose

Rows = list[list[str]]


class Pictures:
    """Links to the pictures in a folder, `docs/images/replication`; None for none.

    A call gives the Markdown that shows a picture, or nothing where there is none of this name.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, what: str) -> list[str]:
        if self.folder is None or not (self.folder / name).exists():
            return []
        return [f"![{what}](images/replication/{name})", ""]

    def link(self, path: str) -> str:
        """Of a picture by its path below docs/images."""
        if self.folder is None or not (self.folder.parent / path).exists():
            return prose.NOT_DRAWN
        return f"[{path.rpartition('/')[2]}](images/{path})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown, an empty one last."""
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]] + [""]
