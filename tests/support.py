"""Names that the tests share."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Debug=fast makes every part small; tests need neither the pictures nor the tracer's seconds.
SMALL = ["debug=fast", "callbacks.graph=null", "trainer.accelerator=cpu", "trainer.progress_bar=false"]


@dataclasses.dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


Command = Callable[..., Outcome]
