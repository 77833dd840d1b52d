"""The whole chain on a source: minutes, Dice, and where the time goes.

    python -m tests.benchmarks.chain SOURCE [--preset NAME] [--set STEP.KEY=VALUE ...]

Prints the total, training's share, the other steps together, and what the runner adds (all that
is no step: interpreter, compilation, reports). The store, the cache, MLflow and the output are new
folders.

Goal on the 71 volumes: 0.80 mean patient Dice within 3 minutes on two cores with AMX, 5 without.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.training import has_amx, verdict

GOAL_DICE, GOAL_S, GOAL_S_WITH_AMX = 0.8, 300, 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", nargs="*", default=[], metavar="STEP.KEY=VALUE", dest="changes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        changes = [part for change in chosen.changes for part in ("--set", change)]
        settings = ["--preset", chosen.preset, *changes]
        _run(str(Path(chosen.source).absolute()), settings, folder)
        total = time.monotonic() - started
        report(json.loads((Path(folder) / "out" / "result.json").read_text()), total)


def _run(source: str, settings: list[str], folder: str) -> None:
    brainseg = str(Path(sys.executable).with_name("brainseg"))
    # a warm cache would flatter, and the rest would lead the run to other folders and servers
    variables = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name for word in ("BRAINSEG", "KFP", "MLFLOW"))
    }
    subprocess.run(
        [brainseg, "run", "--source", source, *settings, "--output", "out"],
        cwd=folder,
        env=variables,
        check=True,
    )


def report(result: dict, total: float) -> None:
    seconds = {name: value for name, value in result["seconds"].items() if name != "total"}
    others = sum(value for name, value in seconds.items() if name != "train")
    print(f"whole chain            {total:7.1f} s")
    print(f"  training             {seconds['train']:7.1f} s  ({seconds['train'] / total:.0%})")
    shown = ", ".join(f"{name} {value}" for name, value in seconds.items() if name != "train")
    print(f"  the other steps      {others:7.1f} s  ({shown})")
    print(f"  the runner           {total - sum(seconds.values()):7.1f} s")
    for name in ("patient_dice_mean", "patient_dice_median", "pooled_dice", "slice_dice_mean"):
        empty = result["metrics"][f"{name}_empty_baseline"]
        print(f"{name:22} {result['metrics'][name]:7.3f}    (empty prediction {empty:.3f})")
    limit = GOAL_S_WITH_AMX if has_amx() else GOAL_S
    reached = total <= limit and result["metrics"]["patient_dice_mean"] >= GOAL_DICE
    print(f"{GOAL_DICE} within {limit} s: {verdict(reached)}")


if __name__ == "__main__":
    main()
