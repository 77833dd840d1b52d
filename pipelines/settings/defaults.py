"""Defaults of the command line, of schedules and of compilation."""

PIPELINE = "training"
PROFILE = "cpu"  # a pipeline that asks for a GPU waits forever on a cluster without one
PRESET = "quick"
