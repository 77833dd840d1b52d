"""Check of KFP's MLflow plugin."""

import json

from components.shared.cluster import Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import SERVER, Installation, container
from pipelines.doctor.cluster.rights import Right, missing_of_runs
from pipelines.doctor.cluster.target import Target

_CONFIG_FOLDER = "/config"  # of the API server: backend/Dockerfile

# backend/src/apiserver/config/config.json at 2.17.0: the image names a server that few have
_IMAGES_OWN = "https://mlflow.opendatahub.svc.cluster.local:8443"

_GROUP, _WHY = "mlflow.kubeflow.org", "MLflow asks whether the account may"
RIGHTS = (
    Right(_GROUP, "experiments", "get list create update", _WHY),
    Right(_GROUP, "registeredmodels", "get list create update", _WHY),
)


def check_plugin(found: Installation, target: Target) -> Check:
    """Check the plugin's server and rights (backend/src/apiserver/plugins/mlflow/config.go)."""
    deployment = found.deployment(SERVER)
    config = _mounted_config(found, deployment)
    if config is None:
        image = str(container(deployment)["image"])
        text = f"the config.json of {image} is in force; that of 2.17.0 names {_IMAGES_OWN}"
        advice = (
            "if that is not yours, every run reports its failure and may wait a minute for it: "
            "submit with --no-mlflow-plugin, or mount a config.json with your server in "
            "plugins.mlflow, or without it"
        )
        return Check("MLflow plugin", "warning", text, advice)
    plugin = (config.get("plugins") or {}).get("mlflow")
    if not plugin:
        return Check("MLflow plugin", "ok", "it is off: steps create their own runs in MLflow")
    settings = {**(plugin.get("settings") or {}), **_overrides(found, target, deployment, plugin)}
    inject = settings.get("injectUserEnvVars")
    given = "MLFLOW_* and KFP_MLFLOW_CONFIG" if inject else "KFP_MLFLOW_CONFIG alone"
    endpoint, access = plugin.get("endpoint", "nowhere"), settings.get("authType", "kubernetes")
    text = f"it is on: {endpoint}, authentication {access}, tasks are given {given}"
    if access == "kubernetes" and (missing := missing_of_runs(found.cluster, target, RIGHTS)):
        text = f"{text}; {target.service_account} may not {missing}"
        advice = "kubectl apply -f manifests/base/access/ in the namespace of runs"
        return Check("MLflow plugin", "error", text, advice)
    own = _own_address(found, target)
    if own and own.rstrip("/") != endpoint.rstrip("/"):  # as components.shared.environment
        advice = (
            "a run gets two runs in MLflow, the plugin's and ours: write the same address, letter "
            "by letter, into plugins.mlflow of KFP's config.json and into the settings of pods, or "
            "submit with --no-mlflow-plugin"
        )
        return Check("MLflow plugin", "warning", f"{text}; the pods' own address is {own}", advice)
    return Check("MLflow plugin", "ok", text)


def _mounted_config(found: Installation, deployment: Json) -> Json | None:
    """The config.json that is mounted over the image's own; `None` if none is."""
    volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}
    for mount in container(deployment).get("volumeMounts", ()):
        place = mount["mountPath"].rstrip("/")
        source = volumes.get(mount["name"], {}).get("configMap")
        if source and place in (_CONFIG_FOLDER, f"{_CONFIG_FOLDER}/config.json"):
            text = found.config_map(source["name"]).get(mount.get("subPath") or "config.json")
            return dict(json.loads(text)) if text else {}
    return None


def _own_address(found: Installation, target: Target) -> str:
    """The address of MLflow in the settings of steps; empty if the plugin alone has one."""
    step, name = target.profile.steps["train"], "BRAINSEG_MLFLOW_TRACKING_URI"
    runs = Installation(found.cluster, target.namespace)
    for source in step.config:
        if name in source.env:
            return runs.config_map(source.name, optional=True).get(source.env[name], "")
    return step.env.get(name, "")


def _overrides(found: Installation, target: Target, deployment: Json, plugin: Json) -> Json:
    """Settings of the runs' namespace alone; installations for one user have none."""
    if found.variables(deployment, ["MULTIUSER"])["MULTIUSER"].lower() != "true":
        return {}
    own = (plugin.get("namespaces") or {}).get(target.namespace, {})
    runs = Installation(found.cluster, target.namespace)
    config = runs.config_map("kfp-launcher", optional=True)
    launcher = json.loads(config.get("plugins.mlflow") or "{}")
    return {**(own.get("settings") or {}), **(launcher.get("settings") or {})}
