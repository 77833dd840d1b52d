"""Where KFP keeps artifacts, and with what key."""

from collections.abc import Iterable, Iterator

import yaml

from components.shared.cluster import Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import Installation
from pipelines.doctor.cluster.target import Target


def check_artifacts(found: Installation, target: Target) -> Check:
    """Where KFP's launcher keeps artifacts, and whether it has the key.

    See backend/src/v2/config/env.go and minio.go at 2.17.0.
    """
    runs = Installation(found.cluster, target.namespace)
    config = runs.optional_config_map("kfp-launcher")
    root = config.get("defaultPipelineRoot") or "minio://mlpipeline/v2/artifacts"
    providers = yaml.safe_load(config.get("providers") or "") or {}
    provider = providers.get(root.partition("://")[0])
    secrets = list(_secrets(provider)) if provider else []
    if provider is None and root.startswith("minio://"):
        secrets = [("mlpipeline-minio-artifact", ["accesskey", "secretkey"])]
    for name, keys in secrets:
        if missing := _missing_keys(runs, name, keys):
            advice = (
                f"copy it from the namespace {found.namespace}, or set providers in kfp-launcher"
            )
            return Check("artifacts", "error", f"{root}: {missing}", advice)
    key = f"the key is in the Secret {', '.join(name for name, _ in secrets)}"
    return Check("artifacts", "ok", f"{root}; {key if secrets else 'pods use their own role'}")


def _secrets(provider: Json) -> Iterator[tuple[str, list[str]]]:
    others = provider.get("Overrides") or provider.get("overrides") or ()  # Go takes both
    for each in [provider.get("default") or {}, *others]:
        reference = (each.get("credentials") or {}).get("secretRef")
        if reference:
            yield reference["secretName"], [reference["accessKeyKey"], reference["secretKeyKey"]]


def _missing_keys(runs: Installation, name: str, keys: Iterable[str]) -> str:
    place = f"the Secret {name} in {runs.namespace}"
    secret = runs.cluster.find(f"secrets/{name}")
    if secret is None:
        return f"there is no {place.removeprefix('the ')}"
    found = secret.get("data") or {}
    missing = [key for key in keys if key not in found]
    return f"{place} lacks {', '.join(missing)}" if missing else ""
