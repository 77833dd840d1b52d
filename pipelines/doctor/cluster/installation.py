"""Checks of the settings of Kubeflow Pipelines, as far as the user may see them."""

from collections.abc import Callable, Iterator

import yaml

from components.shared.cluster import Cluster, Json, KubernetesError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import SCHEDULER, SERVER, Installation, find_installation
from pipelines.doctor.cluster.plugin import check_plugin
from pipelines.doctor.cluster.server import unknown
from pipelines.doctor.cluster.target import Target

_MISTAKE = "brainseg error:"  # start of the termination message of a user's mistake
_RETRY_ADVICE = (
    "in Argo's workflow-controller-configmap set workflowDefaults.spec.templateDefaults."
    'retryStrategy to retryPolicy: Always, expression: "not (lastRetry.message matches '
    f"'exit code [0-9]+[)]: {_MISTAKE} ')\": outages are retried and mistakes are not"
)
_RETRIED = {
    "OnError": "pods that were deleted, and no step that failed",
    "OnFailure": "steps that failed, mistakes too, and no pods that were deleted",
    "Always": "all that failed, mistakes too",
    "OnTransientError": "what Argo's TRANSIENT_ERROR_PATTERN matches",
}


def check_installation(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Run each check; one whose objects the user may not see is unknown."""
    found, absent = find_installation(cluster), []
    looks: dict[str, Callable[[Installation, Target], Check]] = {
        "retry rule": check_retry_rule,
        "zone": check_zone,
        "MLflow plugin": check_plugin,
        "pod users": check_users,
        "artifacts": check_artifacts,
    }
    for name, look in looks.items():
        try:
            yield look(found, target)
        except KubernetesError as error:
            if error.status == 404:
                absent.append(name)
            else:
                yield unknown(name, error)
    if absent:
        advice = f"look where it runs: it is found by the label app={SERVER} of its Deployment"
        text = f"the namespace {found.namespace} lacks the objects of {', '.join(absent)}"
        yield Check("KFP settings", "unknown", text, advice)


def check_retry_rule(found: Installation, _: Target) -> Check:
    """Check which failures Argo retries: outages, and not mistakes.

    The compiled steps set how often, and not after which failures. That comes from the defaults of
    KFP's patch (backend/src/v2/compiler/argocompiler/spec_patch.go) and of Argo's controller
    (manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml), or is
    `OnFailure` (RetryPolicyActual of Argo 4.0.5, `Always` where there is an expression).
    """
    config = found.config_map("workflow-controller-configmap")
    server = found.deployment(SERVER)
    patch = found.variables(server, ["COMPILED_PIPELINE_SPEC_PATCH"]).popitem()[1]
    # Argo reads its settings from the key `config`, if it is there
    settings = yaml.safe_load(config["config"]) if "config" in config else config
    defaults = settings.get("workflowDefaults") or {}
    if isinstance(defaults, str):
        defaults = yaml.safe_load(defaults) or {}
    rule = {**_retry_strategy(defaults.get("spec")), **_retry_strategy(yaml.safe_load(patch))}
    expression = str(rule.get("expression") or "")
    policy = str(rule.get("retryPolicy") or ("Always" if expression else "OnFailure"))
    where = f", where {expression}" if expression else ""
    text = f"{policy}: Argo retries {_RETRIED.get(policy, 'what it says')}{where}"
    if policy == "Always" and _MISTAKE in expression:
        return Check("retry rule", "ok", text)
    return Check("retry rule", "warning", text, _RETRY_ADVICE)


def _retry_strategy(spec: Json | None) -> Json:
    return dict(((spec or {}).get("templateDefaults") or {}).get("retryStrategy") or {})


def check_zone(found: Installation, _: Target) -> Check:
    """Check the time zone of schedules (GetLocation in backend/src/crd/.../util/const.go)."""
    name = "CRON_SCHEDULE_TIMEZONE"
    zone = found.variables(found.deployment(SCHEDULER), [name])[name]
    if zone in ("UTC", "Etc/UTC"):
        return Check("zone", "ok", f"times of schedules are in {zone}")
    advice = (
        "set cronScheduleTimezone: UTC in the ConfigMap pipeline-install-config and restart "
        f"{SCHEDULER}: `brainseg schedule` counts in UTC"
    )
    if not zone or zone == "Local":
        return Check("zone", "unknown", "times of schedules are in the controller's zone", advice)
    return Check("zone", "error", f"times of schedules are in {zone}", advice)


def check_users(found: Installation, target: Target) -> Check:
    """Check the users that KFP forces on pods against those of the profile and the namespace.

    They take precedence over the pipeline's (extendPodSpecPatch in backend/src/v2/driver/k8s.go);
    PIPELINE_RUN_AS_USER applies to all other containers.
    """
    prefix = "DEFAULT_SECURITY_CONTEXT_RUN_AS"
    every, user, non_root = "PIPELINE_RUN_AS_USER", f"{prefix}_USER", f"{prefix}_NON_ROOT"
    values = found.variables(found.deployment(SERVER), [every, user, f"{prefix}_GROUP", non_root])
    given = {name: text for name, text in values.items() if text}
    text = ", ".join(f"{name}={value}" for name, value in given.items())
    if "0" in (given.get(every), given.get(user)) or given.get(non_root, "").lower() == "false":
        advice = "remove it from pipeline-install-config: restricted namespaces refuse such pods"
        return Check("pod users", "error", f"Kubeflow sets {text}", advice)
    profiles = {str(each.user) for each in target.profile.steps.values()}
    if user in given and profiles != {given[user]}:
        advice = f"set user: {given[user]} in the profile, which now says {', '.join(profiles)}"
        return Check("pod users", "warning", f"Kubeflow sets {text}", advice)
    return Check("pod users", "ok", f"Kubeflow sets {text or 'none: those of the profile hold'}")


def check_artifacts(found: Installation, target: Target) -> Check:
    """Check where KFP's launcher stores artifacts, and that pods have the key.

    See backend/src/v2/config/env.go and minio.go at 2.17.0.
    """
    runs = Installation(found.cluster, target.namespace)
    config = runs.config_map("kfp-launcher", optional=True)
    root = config.get("defaultPipelineRoot") or "minio://mlpipeline/v2/artifacts"
    providers = yaml.safe_load(config.get("providers") or "") or {}
    provider = providers.get(root.partition("://")[0])
    secrets = list(_secrets(provider)) if provider else []
    if provider is None and root.startswith("minio://"):
        secrets = [("mlpipeline-minio-artifact", ["accesskey", "secretkey"])]
    for name, keys in secrets:
        secret = found.cluster.find(f"secrets/{name}")
        missing = [key for key in keys if key not in ((secret or {}).get("data") or {})]
        if missing:
            place = f"Secret {name} in {target.namespace}"
            lack = f"the {place} lacks {', '.join(missing)}" if secret else f"there is no {place}"
            own = f"copy it from the namespace {found.namespace}, or set providers in kfp-launcher"
            return Check("artifacts", "error", f"{root}: {lack}", own)
    key = f"the key is in the Secret {', '.join(name for name, _ in secrets)}"
    return Check("artifacts", "ok", f"{root}; {key if secrets else 'pods use their own role'}")


def _secrets(provider: Json) -> Iterator[tuple[str, list[str]]]:
    others = provider.get("Overrides") or provider.get("overrides") or ()  # Go accepts both
    for each in [provider.get("default") or {}, *others]:
        if reference := (each.get("credentials") or {}).get("secretRef"):
            yield reference["secretName"], [reference["accessKeyKey"], reference["secretKeyKey"]]
