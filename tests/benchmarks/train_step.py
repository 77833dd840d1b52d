"""The train step on prepared volumes: seconds to its first optimizer step, and memory.

`tests.benchmarks.training` runs it, with a folder that it made and the time at which it did.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def main(folder, began):
    os.environ["_KFP_RUNTIME"] = "true"  # as KFP's command for a step has it
    from components.shared.process import importing

    with importing():  # the step does the same; torch has to be there for the hook
        import components.train.training  # noqa: F401
    from kfp import dsl
    from kfp.dsl.utils import load_module
    from torch.optim.optimizer import register_optimizer_step_post_hook

    first = []

    def note(optimizer, *_):
        if len(optimizer.param_groups) > 1:  # not the one of the learning rate's course
            first.append(time.time())

    register_optimizer_step_post_hook(note)
    names = json.loads((folder / "names.json").read_text())
    os.environ["MLFLOW_TRACKING_URI"] = names["mlflow"]
    os.environ["BRAINSEG_CACHE"] = str(folder / "cache")

    def artifact(kind, name):
        return kind(uri=str(folder / name))

    load_module("ephemeral_component", str(folder)).train(
        store=str(folder / "store"),
        dataset_id=names["dataset_id"],
        split_id=names["split_id"],
        manifest=artifact(dsl.Dataset, "manifest"),
        split=artifact(dsl.Artifact, "split"),
        profile_report=artifact(dsl.HTML, "report"),
        pipeline_run=f"benchmark at {began}",
        settings=names["settings"],
        model=artifact(dsl.Model, f"model-{began}"),
        history=artifact(dsl.Artifact, "history"),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    status = Path("/proc/self/status").read_text().split()
    own = int(status[status.index("RssAnon:") + 1]) / 2**20
    split = json.loads((folder / "split").read_text())
    volumes = len(split["train"]) + len(split["validation"])
    print(
        json.dumps(
            {"start_s": first[0] - began, "peak_gb": peak, "own_gb": own, "volumes": volumes}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
