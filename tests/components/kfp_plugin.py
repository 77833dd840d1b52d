"""KFP's MLflow plugin at 2.17.0, played by the calls that it makes and the variables that it sets.

The API server's part is backend/src/apiserver/plugins/mlflow/{handler,run_start}.go, the driver's
and the launcher's backend/src/v2/common/plugins/mlflow/handler.go, the requests are those of
backend/src/common/plugins/mlflow/client.go.
"""

import json
import time
import urllib.request
import uuid


class Plugin:
    """One pipeline run on a cluster with the plugin.

    Args:
        endpoint: Of the MLflow server.
        settings: Fields of `KFP_MLFLOW_CONFIG` other than those of an installation without auth.

    Attributes:
        kfp_run: Id of the pipeline run.
        root: The run that the API server makes for it, before the workflow starts.
    """

    def __init__(self, endpoint, **settings):
        self.endpoint = endpoint
        self.kfp_run = str(uuid.uuid4())
        name = f"KFP-{self.kfp_run}"
        self.experiment = self._post("experiments/create", name=name)["experiment_id"]
        tags = {"kfp.pipeline_run_id": self.kfp_run, "kfp.pipeline_run_url": ""}
        self.root = self._create("nightly", tags)
        self._config = {
            "endpoint": endpoint,
            "parentRunId": self.root,
            "experimentId": self.experiment,
            "authType": "none",
            "timeout": "30s",
            **settings,
        }

    def start_task(self, name, parent=None):
        """The driver: before the first attempt of a task, and of a loop."""
        return self._create(name, {"mlflow.parentRunId": parent or self.root})

    def variables(self, task=None):
        """The environment of a task's container; its run is told if the administrator says so."""
        config = {"KFP_MLFLOW_CONFIG": json.dumps(self._config), "KFP_RUN_ID": self.kfp_run}
        if task is None:
            return config
        return config | {
            "MLFLOW_RUN_ID": task,
            "MLFLOW_TRACKING_URI": self.endpoint,
            "MLFLOW_EXPERIMENT_ID": self.experiment,
        }

    def end_attempt(self, task, status, params=None, metrics=None):
        """The launcher: after every attempt."""
        given = [{"key": key, "value": json.dumps(value)} for key, value in (params or {}).items()]
        points = [
            {"key": key, "value": value, "timestamp": 0, "step": 0}
            for key, value in (metrics or {}).items()
        ]
        self._post("runs/log-batch", run_id=task, params=given, metrics=points, tags=[])
        self._update(task, status, end_time=int(time.time() * 1000))

    def end_run(self, status):
        """The API server, when the pipeline run is over: ends what is still open."""
        self._update(self.root, status)
        self._sync(self.root, lambda now: now not in ("FINISHED", "FAILED", "KILLED"), status)

    def retry_run(self):
        """The API server, when someone presses "Retry"."""
        self._update(self.root, "RUNNING")
        self._sync(self.root, lambda now: now in ("FAILED", "KILLED"), "RUNNING")

    def _sync(self, parent, is_meant, status):
        query = f"tags.\"mlflow.parentRunId\" = '{parent}'"
        found = self._post("runs/search", experiment_ids=[self.experiment], filter=query)
        for run in found.get("runs", []):
            if is_meant(run["info"]["status"]):
                self._sync(run["info"]["run_id"], is_meant, status)
                self._update(run["info"]["run_id"], status)

    def _create(self, name, tags):
        made = self._post(
            "runs/create",
            experiment_id=self.experiment,
            run_name=name,
            start_time=int(time.time() * 1000),
            tags=[{"key": key, "value": value} for key, value in tags.items()],
        )
        return made["run"]["info"]["run_id"]

    def _update(self, run_id, status, **more):
        self._post("runs/update", run_id=run_id, status=status, **more)

    def _post(self, path, **body):
        request = urllib.request.Request(
            f"{self.endpoint}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
