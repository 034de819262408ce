"""The two documents' printed figures beside ours: what to train, what was trained, and the page that shows both."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""Of the project: train.py, conf and docs lie there."""
