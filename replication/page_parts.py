"""Parts that all sections of the page share: tables, and links to pictures that may be missing."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from replication import prose

Rows = list[list[str]]


class Pictures:
    """Markdown for the pictures in `docs/images/replication`; without a folder all pictures are missing.

    A call returns the lines that show a picture; none if it is missing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, what: str) -> list[str]:
        if self.folder is None or not (self.folder / name).exists():
            return []
        return [f"![{what}](images/replication/{name})", ""]

    def link(self, path: str) -> str:
        """A link to a picture, by its path below docs/images; says so if it is missing."""
        if self.folder is None or not (self.folder.parent / path).exists():
            return prose.NOT_DRAWN
        return f"[{path.rpartition('/')[2]}](images/{path})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, and an empty line."""
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]] + [""]
