"""Environment variables: mapping of a cluster's settings, and temporary changes."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from components.shared.errors import UserError

_PREFIX = "BRAINSEG_"
_ADOPTED = ("BRAINSEG_AWS_", "BRAINSEG_MLFLOW_")

# One of our settings replaces all of its group: a session token that belongs to another key is
# refused, and AWS_ENDPOINT_URL_S3 would override our AWS_ENDPOINT_URL.
_TOGETHER = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ("AWS_REGION", "AWS_DEFAULT_REGION"),
    (
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_AUTH",
    ),
)

PLUGIN_CONFIG = "KFP_MLFLOW_CONFIG"

# Variables that the plugin sets for its own server as well. User name and password are not among
# them: they have the same names in every installation, and may be ours.
_OF_PLUGIN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH")


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process, and restores their values at the end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def adopt_settings() -> None:
    """Maps `BRAINSEG_*` and KFP's MLflow variables to `AWS_*` and `MLFLOW_*`.

    `BRAINSEG_AWS_X` becomes `AWS_X`, `BRAINSEG_MLFLOW_X` becomes `MLFLOW_X`. In a pod they need
    the prefix: KFP's launcher runs in the same container and opens its own artifact store with
    the settings that the AWS SDK finds (backend/src/v2/objectstore/object_store.go at 2.17.0). On
    AWS our `AWS_ENDPOINT_URL_S3` would redirect KFP's artifacts to our store. With `fromEnv` KFP
    would use our keys, and everywhere our region and CA bundle. The launcher's own `AWS_*` stay
    unless one of ours replaces them, for example those of a role.

    `KFP_MLFLOW_CONFIG`, which KFP's MLflow plugin sets in every task, becomes `MLFLOW_*` where
    these are not set. If `MLFLOW_TRACKING_URI` names another server, the plugin's variables are
    removed from this process, as they are valid for its own server only.

    Called by the step's process and by the command line. A second call changes nothing.

    Raises:
        UserError: If `KFP_MLFLOW_CONFIG` is not the JSON that KFP writes.
    """
    _adopt_prefixed()
    if os.environ.get(PLUGIN_CONFIG):
        _adopt_plugin(plugin_config())


def plugin_config() -> Mapping[str, Any]:
    """Returns the settings in `KFP_MLFLOW_CONFIG`; empty if it is not set.

    The fields are those of `MLflowRuntimeConfig` (backend/src/common/plugins/mlflow/config.go
    at 2.17.0); `endpoint`, `parentRunId` and `authType` are always there.

    Raises:
        UserError: If it is not the JSON that KFP writes.
    """
    text = os.environ.get(PLUGIN_CONFIG, "")
    if not text:
        return {}
    try:
        found: dict[str, Any] = json.loads(text)
        return {name: found[name] for name in ("endpoint", "parentRunId", "authType")} | found
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{PLUGIN_CONFIG} is {text!r}, not the JSON of KFP's MLflow plugin; let KFP set it, or "
            "unset it"
        ) from error


def _adopt_prefixed() -> None:
    found = {
        name.removeprefix(_PREFIX): value
        for name, value in os.environ.items()
        if name.startswith(_ADOPTED) and value
    }
    for group in _TOGETHER:
        if any(name in found for name in group):
            _remove(*group)
    os.environ.update(found)


def _adopt_plugin(config: Mapping[str, Any]) -> None:
    own = os.environ.get("MLFLOW_TRACKING_URI") or config["endpoint"]
    if own.rstrip("/") != config["endpoint"].rstrip("/"):
        mine = [name for name in _OF_PLUGIN if os.environ.get(_PREFIX + name)]
        _remove(PLUGIN_CONFIG, *(name for name in _OF_PLUGIN if name not in mine))
        return
    workspace = config.get("workspace", "")
    settings = {"MLFLOW_TRACKING_URI": own, "MLFLOW_WORKSPACE": workspace}
    if config["authType"] == "kubernetes":
        # names of MLflow's own providers; the second sends the workspace too
        settings["MLFLOW_TRACKING_AUTH"] = f"kubernetes{'-namespaced' if workspace else ''}"
    if config.get("insecureSkipVerify"):
        settings["MLFLOW_TRACKING_INSECURE_TLS"] = "true"
    for name, value in settings.items():
        if value and not os.environ.get(name):
            os.environ[name] = value


def _remove(*names: str) -> None:
    for name in names:
        os.environ.pop(name, None)
