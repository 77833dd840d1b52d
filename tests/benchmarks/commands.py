"""How long the command line takes to compile, and to submit to KFP's API.

    python -m tests.benchmarks.commands [--rounds 5]

Each command is a process of its own, as a user starts it; they are measured in turns. The API is
the test server on this machine, empty each time, so that a submission uploads its pipeline too.
Goals: compile at most 3 s, submit at most 5 s. On a busy machine compare the CPU time as well: it
is what the command itself took, however long it waited for a core.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from components.shared.machine import usable_cores
from tests.kfp_api.server import serve

IMAGES = ("--registry", "registry.example/team", "--profile", "gpu")
SUBMIT = ("submit", "--source", "s3://mri/raw", "--store", "s3://mri/brainseg", *IMAGES)
COMMANDS = {  # name -> arguments, goal in seconds
    "compile": (("compile", *IMAGES), 3.0),
    "submit --dry-run": ((*SUBMIT, "--dry-run"), 5.0),
    "submit": (SUBMIT, 5.0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    load = os.getloadavg()[0]
    taken = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, (arguments, _) in COMMANDS.items():
            with serve() as server, tempfile.TemporaryDirectory() as folder:
                taken[name].append(timed(arguments, Path(folder), server.url))
                sent = len(server.backend.runs)
            if sent != (name == "submit"):
                raise SystemExit(f"{name} made {sent} runs")
    print(f"{usable_cores()} cores, load {load:.1f} before; median of {rounds} rounds")
    for name, (_, goal_s) in COMMANDS.items():
        report(name, goal_s, *zip(*taken[name], strict=True))


def timed(arguments, folder, endpoint):
    """Seconds by the clock and of CPU that a command takes in an empty folder."""
    brainseg = Path(sys.executable).with_name("brainseg")
    away = {"HOME": str(folder), "KUBECONFIG": str(folder / "none")}  # nothing of this machine
    environment = {**os.environ, **away, "KF_PIPELINES_ENDPOINT": endpoint}
    before, started = cpu_s(), time.perf_counter()
    subprocess.run(
        [brainseg, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - started, cpu_s() - before


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(name, goal_s, clock_s, cpu):
    median_s = statistics.median(clock_s)
    print(
        f"{name}: {median_s:.2f} s ({min(clock_s):.2f} to {max(clock_s):.2f}), "
        f"{statistics.median(cpu):.2f} s of CPU, goal {goal_s:g} s: "
        f"{'reached' if median_s <= goal_s else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
