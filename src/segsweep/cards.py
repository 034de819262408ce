"""How a run or a sweep shows itself in Python: a few lines of text, and in Jupyter a card with a picture and a table."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from segsweep.errors import UserError, shown
from segsweep.image_files.pillow import open_image
from segsweep.plots import to_image

SIDE = 640
"""Longest side of a card's picture, in pixels."""
_LARGEST = 1 << 24
"""Most pixels of a picture that is read from a file: a stranger's may claim any size."""
_LONGEST = 120
"""Most characters of a line."""


@dataclass(frozen=True)
class Card:
    """What is worth knowing at a glance. All text may come from files: it is cut, and escaped where that matters.

    Args:
        title: what it is, and where.
        lines: facts, the most important first.
        header, rows: a small table; only the HTML has it.
    """

    title: str
    lines: Sequence[str]
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)

    def text(self) -> str:
        return "\n  ".join(_cut(line) for line in [self.title, *self.lines])

    def html(self, picture: Figure | Path | None = None) -> str:
        """The card for Jupyter; `picture` is a figure or a PNG file, which is left out if it cannot be read."""
        parts = ['<div style="display:flex;gap:1.5em;align-items:flex-start">']
        if picture is not None and (png := _png(picture)):
            parts.append(f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">')
        lines = "<br>".join(html.escape(_cut(line)) for line in self.lines)
        parts.append(f'<div style="max-width:36em"><b>{html.escape(_cut(self.title))}</b><br>{lines}')
        if self.rows:
            parts.append(
                "<table><tr>" + "".join(f"<th>{html.escape(_cut(name))}</th>" for name in self.header) + "</tr>"
            )
            for row in self.rows:
                cells = "".join(f"<td>{html.escape(_cut(cell))}</td>" for cell in row)
                parts.append(f"<tr>{cells}</tr>")
            parts.append("</table>")
        return "".join([*parts, "</div></div>"])


def _cut(text: str) -> str:
    line = shown(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 2]} …"


def _png(picture: Figure | Path) -> bytes | None:
    """The picture as the bytes of a PNG of at most `SIDE` pixels; None if the file cannot be read."""
    if isinstance(picture, Figure):
        image = Image.fromarray(to_image(picture))
    else:
        try:
            with open_image(picture, ("PNG",)) as file:
                if file.width * file.height > _LARGEST:
                    return None
                image = file.convert("RGB")
        except (OSError, UserError):
            return None
    image.thumbnail((SIDE, SIDE))
    # 256 colours are enough for a small picture, and take a third of the bytes.
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
