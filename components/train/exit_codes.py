"""Exit codes of training processes, in addition to those of `components.shared.process`."""

PREEMPTED_STATUS = 143  # what a process killed by SIGTERM leaves
LOST_STATUS = 76  # EX_PROTOCOL of sysexits.h: other processes of the training are gone
