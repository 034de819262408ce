"""The devices that the tests of this folder run on, and small trainings on each."""

import pytest
from support import SMALL

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PRECISIONS = [
    ("cpu", "32-true"),
    ("cpu", "bf16-mixed"),
    *(pytest.param("cuda", name, marks=pytest.mark.gpu) for name in ("32-true", "bf16-mixed", "16-mixed")),
]


def accelerator(device: str) -> str:
    """The word for a device in the settings."""
    return {"cpu": "cpu", "cuda": "gpu"}[device]


def small(device: str) -> list[str]:
    """Overrides of a small training on a device."""
    others = [entry for entry in SMALL if not entry.startswith("trainer.accelerator=")]
    return [*others, f"trainer.accelerator={accelerator(device)}"]
