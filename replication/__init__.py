"""Compares the two documents' printed figures with our runs: what to train, what was trained, and the page."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The project folder, with train.py, conf and docs."""
