"""Check of Argo's retry rule."""

import yaml

from components.shared.cluster import Json
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.kubeflow import SERVER, Installation
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
    text = f"{policy}: Argo retries {_RETRIED.get(policy, 'what it says')}"
    if expression:
        text += f", where {expression}"
    if policy == "Always" and _MISTAKE in expression:
        return Check("retry rule", "ok", text)
    return Check("retry rule", "warning", text, _RETRY_ADVICE)


def _retry_strategy(spec: Json | None) -> Json:
    return dict(((spec or {}).get("templateDefaults") or {}).get("retryStrategy") or {})
