"""What holds where nobody says anything: on the command line, in schedules, in compilation."""

PROFILE = "cpu"  # a graph that asks for a GPU waits for ever on a cluster without
PRESET = "quick"
