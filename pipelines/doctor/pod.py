"""Program in the pods of `brainseg doctor --cluster`: tries the store and MLflow.

Its answer is the termination message, which everyone who sees the pod can read. Logs come from the
node, which not every API server reaches and not every user may read.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from pathlib import Path

from components.shared.process import step_process
from pipelines.doctor.check import Check
from pipelines.doctor.services import check_mlflow, check_store
from pipelines.doctor.weights import check_weights

_ANSWER = Path("/dev/termination-log")
_MAX_LENGTH = 550  # characters of each of six texts: the kubelet keeps 4096 bytes of the whole
_LIMIT_S = 20.0  # a request that a network policy drops is never answered


def run(store_uri: str, limit_s: float, weights: Sequence[str] = ()) -> list[Check]:
    """Try the store, unless the URI is empty, and MLflow at the same time, within `limit_s`.

    `weights` are the sources of those that networks start from.
    """
    looks: dict[str, Callable[[], Check]] = {}
    if store_uri:
        looks["store"] = lambda: check_store(store_uri)
        if weights and importlib.util.find_spec("torch"):  # this image trains
            looks["weights"] = lambda: check_weights(store_uri, weights)
    if importlib.util.find_spec("mlflow"):  # the image of the data steps has none
        import components.shared.tracking.server  # noqa: F401 - takes seconds

        looks["MLflow"] = _check_mlflow
    pool = ThreadPoolExecutor()
    end = time.monotonic() + limit_s
    futures = {name: pool.submit(look) for name, look in looks.items()}
    found = []
    for name, future in futures.items():
        try:
            found.append(future.result(end - time.monotonic()))
        except NoAnswerError:
            advice = "look whether a NetworkPolicy or a firewall drops the request"
            found.append(Check(name, "error", f"no answer within {limit_s:.0f} s", advice))
    return found


def main(answer_file: Path = _ANSWER, limit_s: float = _LIMIT_S) -> None:
    """Write the answer and end, even if a thread still waits for the network."""
    with step_process("doctor"):
        checks = [_shortened(check) for check in run(sys.argv[1], limit_s, sys.argv[2:])]
        answer = {"time": time.time(), "checks": [vars(check) for check in checks]}
        answer_file.write_text(json.dumps(answer))
    os._exit(0)


def _check_mlflow() -> Check:
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return check_mlflow()
    advice = (
        "set it in the ConfigMap brainseg-settings; only where KFP's MLflow plugin is on it comes "
        "with the run"
    )
    return Check("MLflow", "unknown", "pods have no MLFLOW_TRACKING_URI", advice)


def _shortened(check: Check) -> Check:
    return Check(check.name, check.status, check.found[:_MAX_LENGTH], check.advice[:_MAX_LENGTH])


if __name__ == "__main__":
    main()
