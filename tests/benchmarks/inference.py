"""Plan of an inference over simulated cases: seconds and peak memory of its process.

    python -m tests.benchmarks.inference [--cases 10000]

Goal: 10,000 cases in at most 60 s and 500 MB, when all are new and when all are known.
"""

import argparse
import logging
import os
import resource
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from components.predict import planning
from components.predict.cases import fingerprint
from components.predict.settings import PredictSettings
from components.predict.stored import StoredPredictions
from components.shared.storage.store import FolderStore
from components.shared.tracking.local import ensure_local
from tests.components.predict.simulated import SimulatedSource

GOAL_S, GOAL_MB = 60, 500
SETTINGS = PredictSettings(layout={"name": "brats"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    source = SimulatedSource(parser.parse_args().cases)
    logging.disable()
    planning.open_source = source.open
    with tempfile.TemporaryDirectory() as name:
        os.environ["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{name}/mlflow.db"
        ensure_local(uri)
        client, store = MlflowClient(), FolderStore(Path(name, "store"))
        client.create_registered_model("many")
        client.create_model_version("many", source="s3://models/none")
        new = timed("all new", source, store)
        mark(source, store)
        known = timed("all known", source, store)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    reached = max(new, known) <= GOAL_S and peak_mb <= GOAL_MB
    print(
        f"{source.cases:,} cases: at most {max(new, known):.1f} s of {GOAL_S} s, peak memory "
        f"{peak_mb:.0f} MB of {GOAL_MB} MB: {'reached' if reached else 'MISSED'}"
    )


def timed(what, source, store):
    """Plans once, and returns the seconds."""
    started = time.perf_counter()
    plan = planning.plan_predictions("models:/many/1", source.uri, store, SETTINGS)
    seconds = time.perf_counter() - started
    shards = len(plan.shards(SETTINGS.shard_volumes))
    print(f"{what}: {len(plan.cases):,} cases in {shards} shards, {seconds:.1f} s")
    return seconds


def mark(source, store):
    """Marks all cases as predicted."""
    predictions = StoredPredictions(store, "models:/many/1")
    with planning.open_cases(source.uri, SETTINGS) as (opened, layout, listing):
        for scan in listing.scans:
            mark = fingerprint(opened, layout, scan)
            predictions.mark_seen(mark, source.uri, scan.name.volume)


if __name__ == "__main__":
    main()
