"""Stands in for KFP's backend on a real cluster: one Job a task of a compiled pipeline.

There is no KFP backend to be had here. What its driver does with a task's inputs, outputs and
condition is read from backend/src/v2/driver/{resolve,driver}.go at 2.17.0, what it does with
exit handlers from backend/src/v2/compiler/argocompiler/dag.go. Loops are not done here, and
tasks go one after the other.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.cluster.pods import pod_template

LAUNCHER = Path(__file__).with_name("launcher.py")
_EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"


class TaskFailed(Exception):
    """A task's Job failed; the message has what Kubernetes and the log say."""


@dataclass(frozen=True)
class Backend:
    """A namespace in which pipelines run.

    Attributes:
        kubectl: Runs kubectl in the namespace; takes its arguments and the text for stdin.
        root: Where KFP keeps artifacts: s3://bucket/prefix.
        read: Content of an s3:// URI, from here.
        endpoint: Of that S3 service, in pods.
        linger_s: How long a pod lives on when its step has ended, before it uploads artifacts.
    """

    kubectl: Callable
    root: str
    read: Callable
    endpoint: str
    linger_s: float = 0

    def run(self, compiled, arguments, run_id, *, timeout_s=900):
        """Runs a compiled pipeline.

        Returns:
            The parameters and artifacts that each task has put out, by the task's name.

        Raises:
            TaskFailed: If a task's last attempt failed; the later ones are not run.
        """
        spec, platform = yaml.safe_load_all(Path(compiled).read_text())
        self._install_launcher()
        run = _Run(self, spec, platform, run_id, timeout_s)
        declared = spec["root"]["inputDefinitions"]["parameters"]
        given = {
            name: arguments.get(name, entry.get("defaultValue")) for name, entry in declared.items()
        }
        run.dag(spec["root"]["dag"], {"parameters": given, "artifacts": {}})
        return run.done

    def start_one(self, compiled, name, arguments, done, run_id, *, retries=0):
        """Makes the Job of one task, behind tasks that any run has done."""
        spec, platform = yaml.safe_load_all(Path(compiled).read_text())
        run = _Run(self, spec, platform, run_id, 0)
        task = spec["root"]["dag"]["tasks"][name]
        component = spec["components"][task["componentRef"]["name"]]
        inputs = run._inputs(task, {"parameters": arguments, "artifacts": {}}, done)
        executor_input = run._executor_input(name, component, inputs)
        self.start(job_name(run_id, name), run._pod(name, component, executor_input), retries)

    def start(self, job, pod, retries):
        """Makes the Job of a task."""
        main = pod["spec"]["containers"][0]
        main["env"] += [
            {"name": "KFP_S3_ENDPOINT", "value": self.endpoint},
            {"name": "KFP_LINGER_S", "value": str(self.linger_s)},
            _key("KFP_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
            _key("KFP_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ]
        labels = pod["metadata"]["labels"]
        described = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job, "labels": labels},
            "spec": {"template": pod, "backoffLimit": retries},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(described))

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
                raise TaskFailed(f"{job}: {kinds['Failed']['message']}\n{self.report(job)}")
            time.sleep(1)
        raise TaskFailed(f"{job} has not ended in {timeout_s} s\n{self.report(job)}")

    def report(self, job):
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
            "metadata": {"name": "kfp-launcher-source"},
            "data": {"launcher.py": LAUNCHER.read_text()},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(config_map))


@dataclass(frozen=True)
class _Run:
    backend: Backend
    spec: dict
    platform: dict
    run_id: str
    timeout_s: float
    done: dict = field(default_factory=dict)

    def dag(self, dag, inputs):
        """Runs the tasks of a graph; returns what the graph puts out."""
        done, failure = {}, None
        for name in in_order(dag["tasks"]):
            task = dag["tasks"][name]
            policy = task.get("triggerPolicy", {})
            if failure and policy.get("strategy") != _EXIT:
                continue
            found = self._inputs(task, inputs, done)
            if "condition" not in policy or holds(policy["condition"], found["parameters"]):
                try:
                    done[name] = self._task(name, task, found)
                except TaskFailed as error:
                    failure = failure or error
        if failure:
            raise failure
        return self._outputs(dag.get("outputs", {}), done)

    def _task(self, name, task, inputs):
        component = self.spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            return self.dag(component["dag"], inputs)
        executor_input = self._executor_input(name, component, inputs)
        self.backend.start(
            job_name(self.run_id, name),
            self._pod(name, component, executor_input),
            task.get("retryPolicy", {}).get("maxRetryCount", 0),
        )
        self.backend.wait(job_name(self.run_id, name), self.timeout_s)
        self.done[name] = self._collect(executor_input)
        return self.done[name]

    def _pod(self, name, component, executor_input):
        label = component["executorLabel"]
        pods = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        command = [
            json.dumps(executor_input),
            f"{self._folder(name)}/executor_output.json",
            "--",
            *container["command"],
            *container["args"],
        ]
        return pod_template(container, pods[label], command=command, run_id=self.run_id)

    def _folder(self, name):
        return f"{self.backend.root}/{self.run_id}/{name}"

    def _inputs(self, task, inputs, done):
        given = task.get("inputs", {})
        parameters = {
            key: self._parameter(entry, inputs, done)
            for key, entry in given.get("parameters", {}).items()
        }
        artifacts = {
            key: _artifact(entry, inputs, done) for key, entry in given.get("artifacts", {}).items()
        }
        return {"parameters": parameters, "artifacts": artifacts}

    def _parameter(self, entry, inputs, done):
        if "componentInputParameter" in entry:
            return inputs["parameters"][entry["componentInputParameter"]]
        if "taskOutputParameter" in entry:
            source = entry["taskOutputParameter"]
            return done[source["producerTask"]]["parameters"][source["outputParameterKey"]]
        if "taskFinalStatus" in entry:  # without a reason, as the backend gives it
            has_ended = entry["taskFinalStatus"]["producerTask"] in done
            return {"state": "COMPLETE" if has_ended else "FAILED", "error": {}}
        assert "runtimeValue" in entry, f"not done here: {entry}"
        constant = entry["runtimeValue"]["constant"]
        for placeholder in ("{{$.pipeline_job_uuid}}", "{{$.pipeline_job_name}}"):
            if isinstance(constant, str):
                constant = constant.replace(placeholder, self.run_id)
        return constant

    def _outputs(self, outputs, done):
        parameters = {
            key: _first(done, entry["valueFromParameter"], "parameters", "outputParameterKey")
            for key, entry in outputs.get("parameters", {}).items()
        }
        artifacts = {
            key: _first(done, entry["artifactSelectors"][0], "artifacts", "outputArtifactKey")
            for key, entry in outputs.get("artifacts", {}).items()
        }
        return {"parameters": parameters, "artifacts": artifacts}

    def _executor_input(self, name, component, inputs):
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        defaults = {
            key: entry["defaultValue"] for key, entry in declared.items() if "defaultValue" in entry
        }
        folder, outputs = self._folder(name), component.get("outputDefinitions", {})
        return {
            "inputs": {
                "parameterValues": {**defaults, **inputs["parameters"]},
                "artifacts": {
                    key: {"artifacts": [found]} for key, found in inputs["artifacts"].items()
                },
            },
            "outputs": {
                "parameters": {
                    key: {"outputFile": f"/tmp/kfp/outputs/{key}"}
                    for key in outputs.get("parameters", {})
                },
                "artifacts": {
                    key: {"artifacts": [_made(key, entry["artifactType"], f"{folder}/{key}")]}
                    for key, entry in outputs.get("artifacts", {}).items()
                },
                "outputFile": f"/s3/{folder.removeprefix('s3://')}/output_metadata.json",
            },
        }

    def _collect(self, executor_input):
        outputs = executor_input["outputs"]
        folder = f"s3://{outputs['outputFile'].removeprefix('/s3/').rpartition('/')[0]}"
        output = json.loads(self.backend.read(f"{folder}/executor_output.json"))
        said = output.get("artifacts", {})
        artifacts = {
            key: {**found["artifacts"][0], **(said[key]["artifacts"][0] if key in said else {})}
            for key, found in outputs["artifacts"].items()
        }
        return {"parameters": output.get("parameterValues", {}), "artifacts": artifacts}


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
    assert not any("parameterIterator" in task for task in tasks.values()), "no loops here"
    return order


def holds(condition, parameters):
    """Whether a condition holds; of the form that `dsl.If` gives to one comparison of texts."""
    form = r"inputs\.parameter_values\['([^']+)'\] == '([^']*)'"
    match = re.fullmatch(form, condition)
    assert match, f"a condition of another form is not done here: {condition}"
    return parameters[match[1]] == match[2]


def job_name(run_id, task):
    return f"{task}-{run_id}"


def _key(name, key):
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "brainseg-store", "key": key}}}


def _artifact(entry, inputs, done):
    if "componentInputArtifact" in entry:
        return inputs["artifacts"][entry["componentInputArtifact"]]
    source = entry["taskOutputArtifact"]
    return done[source["producerTask"]]["artifacts"][source["outputArtifactKey"]]


def _first(done, source, kind, key):
    return done[source["producerSubtask"]][kind][source[key]]


def _made(name, kind, uri):
    return {"name": name, "type": kind, "uri": uri, "metadata": {}}
