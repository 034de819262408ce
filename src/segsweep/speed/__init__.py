"""Finds the fastest settings of this machine for a training: `python train.py debug=speed`."""

from segsweep.speed.bench import NEAR, NOISE
from segsweep.speed.measure import Report, measure_speed

__all__ = ["NEAR", "NOISE", "Report", "measure_speed"]
