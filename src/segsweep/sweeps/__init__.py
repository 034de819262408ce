"""Sweeps: the runs of one command, and what they say together."""
