"""Stands in for KFP's backend on a real cluster: one Job a task of a compiled pipeline.

There is no KFP backend to be had here. What its driver does with a task's inputs and outputs is
read from backend/src/v2/driver/{resolve,driver}.go at 2.17.0; what is not done here (conditions,
loops) is refused.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.pods import pass_on, pod_template

LAUNCHER = Path(__file__).with_name("launcher.py")


class TaskFailed(Exception):
    """A task's Job failed; the message has what Kubernetes and the log say."""


@dataclass(frozen=True)
class Backend:
    """A namespace in which pipelines run.

    Attributes:
        kubectl: Runs kubectl in the namespace; takes its arguments and the text for stdin.
        root: Where KFP keeps artifacts: s3://bucket/prefix.
        bucket: A client of the same bucket, from here.
        endpoint: Of that S3 service, in pods.
    """

    kubectl: object
    root: str
    bucket: object
    endpoint: str

    def run(self, compiled, arguments, run_id, *, timeout_s=900, only=None):
        """Runs a compiled pipeline, or only some of its tasks, and returns every task's outputs.

        Raises:
            TaskFailed: If a task's last attempt failed; the later ones are not run.
        """
        spec, platform = yaml.safe_load_all(Path(compiled).read_text())
        self._install_launcher()
        done = {}
        for name in in_order(spec["root"]["dag"]["tasks"]):
            if only and name not in only:
                continue
            executor_input = self._executor_input(spec, name, arguments, done, run_id)
            self.start(spec, platform, name, executor_input, run_id)
            self.wait(job_name(run_id, name), timeout_s)
            done[name] = self._collect(executor_input)
        return done

    def start_one(self, compiled, name, arguments, done, run_id, *, retries):
        """Makes the Job of one task, behind tasks of whichever run."""
        spec, platform = yaml.safe_load_all(Path(compiled).read_text())
        self._install_launcher()
        spec["root"]["dag"]["tasks"][name]["retryPolicy"] = {"maxRetryCount": retries}
        executor_input = self._executor_input(spec, name, arguments, done, run_id)
        self.start(spec, platform, name, executor_input, run_id)

    def start(self, spec, platform, name, executor_input, run_id):
        """Makes the Job of a task."""
        task = spec["root"]["dag"]["tasks"][name]
        component = spec["components"][task["componentRef"]["name"]]
        label = component["executorLabel"]
        container = spec["deploymentSpec"]["executors"][label]["container"]
        settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
        container, settings, task_config = pass_on(container, settings, component)
        for key, entry in component["inputDefinitions"]["parameters"].items():
            if entry["parameterType"] == "TASK_CONFIG":
                executor_input["inputs"]["parameterValues"][key] = task_config
        command = [
            json.dumps(executor_input),
            f"{self.root}/{run_id}/{name}/executor_output.json",
            "--",
            *container["command"],
            *container["args"],
        ]
        pod = pod_template(container, settings, command=command, run_id=run_id)
        pod["spec"]["containers"][0]["env"] += [
            {"name": "KFP_S3_ENDPOINT", "value": self.endpoint},
            _key("KFP_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
            _key("KFP_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ]
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job_name(run_id, name), "labels": {"pipeline/runid": run_id}},
            "spec": {
                "template": pod,
                "backoffLimit": task.get("retryPolicy", {}).get("maxRetryCount", 0),
            },
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(job))

    def wait(self, job, timeout_s):
        """Waits for the end of a Job.

        Raises:
            TaskFailed: If it failed or has not ended in time.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            status = json.loads(self.kubectl("get", "job", job, "-o", "json"))["status"]
            if status.get("succeeded"):
                return
            kinds = {each["type"]: each for each in status.get("conditions", [])}
            if "Failed" in kinds:
                raise TaskFailed(f"{job}: {kinds['Failed']['message']}\n{self.story(job)}")
            time.sleep(1)
        raise TaskFailed(f"{job} has not ended in {timeout_s} s\n{self.story(job)}")

    def story(self, job):
        """What people see of a Job: termination messages, events and the last log lines."""
        selector = f"job-name={job}"
        messages = self.kubectl(
            "get", "pods", "-l", selector, "-o",
            "jsonpath={range .items[*]}{.metadata.name}: {.status.phase} "
            "{.status.reason} {.status.containerStatuses[*].state.*.message}{'\\n'}{end}",
        )  # fmt: skip
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        logs = self.kubectl("logs", "-l", selector, "-c", "main", "--tail=40", check=False)
        relevant = "\n".join(line for line in events.splitlines() if job in line)
        return f"{messages}\n{relevant}\n{logs}"

    def _install_launcher(self):
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kfp-launcher"},
            "data": {"launcher.py": LAUNCHER.read_text()},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(config_map))

    def _executor_input(self, spec, name, arguments, done, run_id):
        inputs = {
            key: arguments.get(key, entry.get("defaultValue"))
            for key, entry in spec["root"]["inputDefinitions"]["parameters"].items()
        }
        task = spec["root"]["dag"]["tasks"][name]
        component = spec["components"][task["componentRef"]["name"]]
        given = task.get("inputs", {})
        values = {
            key: _value(entry, inputs, done, run_id)
            for key, entry in given.get("parameters", {}).items()
        }
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        defaults = {
            key: entry["defaultValue"] for key, entry in declared.items() if "defaultValue" in entry
        }
        artifacts = {
            key: {"artifacts": [_artifact(entry, done)]}
            for key, entry in given.get("artifacts", {}).items()
        }
        outputs = component.get("outputDefinitions", {})
        folder = f"{self.root}/{run_id}/{name}"
        return {
            "inputs": {"parameterValues": {**defaults, **values}, "artifacts": artifacts},
            "outputs": {
                "parameters": {
                    key: {"outputFile": f"/tmp/kfp/outputs/{key}"}
                    for key in outputs.get("parameters", {})
                },
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                "name": key,
                                "type": entry["artifactType"],
                                "uri": f"{folder}/{key}",
                                "metadata": {},
                            }
                        ]
                    }
                    for key, entry in outputs.get("artifacts", {}).items()
                },
                "outputFile": f"/s3/{folder.removeprefix('s3://')}/output_metadata.json",
            },
        }

    def _collect(self, executor_input):
        outputs = executor_input["outputs"]
        folder = f"s3://{outputs['outputFile'].removeprefix('/s3/').rpartition('/')[0]}"
        told = json.loads(self.bucket.read(f"{folder}/executor_output.json"))
        artifacts = {
            key: {**found["artifacts"][0], **told.get("artifacts", {}).get(key, {}).get(
                "artifacts", [{}]
            )[0]}
            for key, found in outputs["artifacts"].items()
        }  # fmt: skip
        return {"parameters": told.get("parameterValues", {}), "artifacts": artifacts}


def in_order(tasks):
    """The names of tasks, each after those that it depends on.

    Args:
        tasks: Of one DAG in the compiled pipeline.
    """
    left, order = dict(tasks), []
    while left:
        ready = [name for name in left if set(left[name].get("dependentTasks", [])) <= set(order)]
        assert ready, f"a circle in {list(left)}"
        order += ready
        left = {name: task for name, task in left.items() if name not in ready}
    for name in order:
        assert "triggerPolicy" not in tasks[name], "conditions are not done here"
        assert "parameterIterator" not in tasks[name], "loops are not done here"
    return order


def job_name(run_id, task):
    return f"{task}-{run_id}"


def _key(name, key):
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "brainseg-store", "key": key}}}


def _value(entry, inputs, done, run_id):
    if "componentInputParameter" in entry:
        return inputs[entry["componentInputParameter"]]
    if "taskOutputParameter" in entry:
        source = entry["taskOutputParameter"]
        return done[source["producerTask"]]["parameters"][source["outputParameterKey"]]
    constant = entry["runtimeValue"]["constant"]
    return run_id if constant == "{{$.pipeline_job_uuid}}" else constant


def _artifact(entry, done):
    source = entry["taskOutputArtifact"]
    return done[source["producerTask"]]["artifacts"][source["outputArtifactKey"]]
