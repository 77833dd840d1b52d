"""Runs a server for as long as a process lives: `supervised_server.py PID PROGRAM [ARGUMENT ...]`.

A killed test run executes no clean-up code, so the server cannot be left to a fixture.
"""

import os
import signal
import subprocess
import sys
import time


def is_alive(pid: int) -> bool:
    """Whether a process exists; it may belong to another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    """Starts the server, waits for the end of the process, and ends the server's process group."""
    pid, command = int(sys.argv[1]), sys.argv[2:]
    server = subprocess.Popen(command, start_new_session=True)
    while is_alive(pid) and server.poll() is None:
        time.sleep(0.3)
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
