"""What Argo tries again on this installation."""

import yaml

from components.shared.cluster import Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import SERVER, Installation
from pipelines.doctor.cluster.target import Target

_SPARING = "brainseg error:"  # how the termination message of a mistake begins
_RETRY_ADVICE = (
    "in Argo's workflow-controller-configmap set workflowDefaults.spec.templateDefaults."
    'retryStrategy to retryPolicy: Always, expression: "not (lastRetry.message matches '
    f"'exit code [0-9]+[)]: {_SPARING} ')\": outages are tried again and mistakes are not"
)
_RETRIED = {
    "OnError": "pods that were taken away, and no step that failed",
    "OnFailure": "steps that failed, mistakes too, and no pods that were taken away",
    "Always": "all that failed, mistakes too",
    "OnTransientError": "what Argo's TRANSIENT_ERROR_PATTERN matches",
}


def check_retry_rule(found: Installation, target: Target) -> Check:
    """What Argo tries again.

    The compiled steps say how often and not after what: that comes from the defaults of KFP's
    patch (backend/src/v2/compiler/argocompiler/spec_patch.go) and of Argo's controller
    (manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml), or is
    `OnFailure` (RetryPolicyActual of Argo 4.0.5, `Always` where there is an expression).
    """
    del target
    config = found.config_map("workflow-controller-configmap")
    server = found.deployment(SERVER)
    patch = found.variables(server, ["COMPILED_PIPELINE_SPEC_PATCH"]).popitem()[1]
    # Argo takes its settings from the key `config`, if it is there
    settings = yaml.safe_load(config["config"]) if "config" in config else config
    defaults = settings.get("workflowDefaults") or {}
    if isinstance(defaults, str):
        defaults = yaml.safe_load(defaults) or {}
    rule = {**_retry_strategy(defaults.get("spec")), **_retry_strategy(yaml.safe_load(patch))}
    expression = str(rule.get("expression") or "")
    policy = str(rule.get("retryPolicy") or ("Always" if expression else "OnFailure"))
    told = f"{policy}: Argo tries again {_RETRIED.get(policy, 'what it says')}"
    if expression:
        told += f", where {expression}"
    if policy == "Always" and _SPARING in expression:
        return Check("retry rule", "ok", told)
    return Check("retry rule", "warning", told, _RETRY_ADVICE)


def _retry_strategy(spec: Json | None) -> Json:
    return dict(((spec or {}).get("templateDefaults") or {}).get("retryStrategy") or {})
