"""What KFP's local runner or backend gets silently wrong, found in a compiled graph."""

import re

from kubernetes.utils.quantity import parse_quantity


def lint(spec):
    """Problems of a pipeline's first YAML document, in words."""
    problems = []
    for name, dag in _dags(spec):
        for task_name, task in dag["tasks"].items():
            place = f"{name}/{task_name}"
            condition = task.get("triggerPolicy", {}).get("condition", "")
            problems += _lint_condition(place, condition, task)
            problems += _lint_cache(place, task, dag["tasks"])
            if "parameterIterator" in task or "artifactIterator" in task:
                problems += _lint_loop(place, task)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        problems += _lint_executor(name, executor["container"])
    return problems


def lint_pods(spec, platform):
    """Problems of the pods that both YAML documents of a pipeline describe, in words."""
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    problems = [
        f"{name}: no pod settings" for name in spec["deploymentSpec"]["executors"].keys() - pods
    ]
    for name, pod in pods.items():
        found = [*_user(pod), *_folders(pod), *_launcher(pod)]
        if "activeDeadlineSeconds" not in pod:
            found.append("no timeout")
        if "resources" not in spec["deploymentSpec"]["executors"][name]["container"]:
            found.append("no resources: a quota refuses it")
        problems += [f"{name}: {problem}" for problem in found]
    return problems + list(_retries(spec, pods))


def _dags(spec):
    yield "root", spec["root"]["dag"]
    for name, component in spec["components"].items():
        if "dag" in component:
            yield name, component["dag"]


def _lint_condition(place, condition, task):
    named = [
        value["taskOutputParameter"]["outputParameterKey"]
        for key, value in task.get("inputs", {}).get("parameters", {}).items()
        if key in condition and "taskOutputParameter" in value
    ]
    problems = [f"{place}: condition on named output {key}" for key in named if key != "Output"]
    literals = re.sub(r"\['pipelinechannel--[^']+'\]", "", condition)
    if literals.count("'") > 2 or '"' in literals:
        problems.append(f"{place}: condition on a string with a quote")
    return problems


def _lint_cache(place, task, tasks):
    """The key holds ids of input artifacts, new behind a task that ran (v2/driver/cache.go)."""
    if not task.get("cachingOptions", {}).get("enableCache"):
        return []
    producers = {
        value["taskOutputArtifact"]["producerTask"]
        for value in task.get("inputs", {}).get("artifacts", {}).values()
        if "taskOutputArtifact" in value
    }
    return [
        f"{place}: cached behind {name}, which never is: it is never hit"
        for name in sorted(producers)
        if not tasks[name].get("cachingOptions", {}).get("enableCache")
    ]


def _lint_loop(place, task):
    return [
        f"{place}: outer output {key} inside ParallelFor; use a nested pipeline's input"
        for key, value in task.get("inputs", {}).get("parameters", {}).items()
        if "taskOutputParameter" in value
        and value["taskOutputParameter"]["outputParameterKey"]
        and key not in task.get("parameterIterator", {}).get("items", {}).get("inputParameter", "")
    ]


def _lint_executor(name, container):
    text = " ".join(container.get("command", []) + container.get("args", []))
    problems = []
    if "pip install" in text:
        problems.append(f"{name}: installs packages when it starts")
    if not container["image"].rpartition("/")[2].startswith("brainseg-"):
        problems.append(f"{name}: image {container['image']} is not ours")
    return problems


def _user(pod):
    """The backend sets no runAsNonRoot of its own (argocompiler/security_context.go)."""
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or int(context.get("runAsUser", 0)) == 0:
        yield 'no numbered user but root: "restricted" refuses the pod'


def _folders(pod):
    mounts = {each["mountPath"]: each for each in pod.get("emptyDirMounts", [])}
    if "/tmp" not in mounts:
        yield "/tmp is no volume"
    for path, mount in mounts.items():
        if "sizeLimit" not in mount:
            yield f"{path} has no size and may fill the node"


def _launcher(pod):
    """The launcher runs in our container and reads AWS_* too (backend/src/v2/objectstore); KFP's
    MLflow plugin sets MLFLOW_* by value, which cannot stand beside a reference of ours."""
    for source in [*pod.get("secretAsEnv", []), *pod.get("configMapAsEnv", [])]:
        for pair in source["keyToEnv"]:
            if pair["envVar"].startswith("AWS_"):
                yield f"{pair['envVar']} would redirect KFP's own artifacts"
            if pair["envVar"].startswith("MLFLOW_"):
                yield f"{pair['envVar']} would be set twice where KFP's MLflow plugin is on"


def _retries(spec, pods):
    """Argo counts backoffMaxDuration from the first attempt's start (kubeflow/pipelines#14245)."""
    for name, dag in _dags(spec):
        for task_name, task in dag["tasks"].items():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            policy = task.get("retryPolicy")
            if not policy or label not in pods:
                continue
            attempts = policy["maxRetryCount"] + 1
            window_s = float(policy.get("backoffMaxDuration", "3600s").removesuffix("s"))
            if window_s <= attempts * int(pods[label].get("activeDeadlineSeconds", 0)):
                yield f"{name}/{task_name}: the last attempts lie outside of the retry window"


def shared_memory_bytes(pod):
    """Size of the memory mounted at /dev/shm; 64 MiB where nothing is."""
    sizes = [
        parse_quantity(each["sizeLimit"])
        for each in pod.get("emptyDirMounts", [])
        if each["mountPath"] == "/dev/shm" and each.get("medium") == "Memory"
    ]
    return int(sizes[0]) if sizes else 64 * 2**20
