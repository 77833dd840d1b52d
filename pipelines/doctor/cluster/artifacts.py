"""Check of KFP's artifact bucket and its key."""

from collections.abc import Iterator

import yaml

from components.shared.cluster import Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import Installation
from pipelines.doctor.cluster.target import Target


def check_artifacts(found: Installation, target: Target) -> Check:
    """Check where KFP's launcher stores artifacts, and that pods have the key.

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
        secret = runs.cluster.find(f"secrets/{name}")
        missing = [key for key in keys if key not in ((secret or {}).get("data") or {})]
        if missing:
            place = f"Secret {name} in {runs.namespace}"
            lack = f"the {place} lacks {', '.join(missing)}" if secret else f"there is no {place}"
            advice = (
                f"copy it from the namespace {found.namespace}, or set providers in kfp-launcher"
            )
            return Check("artifacts", "error", f"{root}: {lack}", advice)
    key = f"the key is in the Secret {', '.join(name for name, _ in secrets)}"
    return Check("artifacts", "ok", f"{root}; {key if secrets else 'pods use their own role'}")


def _secrets(provider: Json) -> Iterator[tuple[str, list[str]]]:
    others = provider.get("Overrides") or provider.get("overrides") or ()  # Go accepts both
    for each in [provider.get("default") or {}, *others]:
        reference = (each.get("credentials") or {}).get("secretRef")
        if reference:
            yield reference["secretName"], [reference["accessKeyKey"], reference["secretKeyKey"]]
