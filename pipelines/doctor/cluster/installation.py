"""Checks of the settings of Kubeflow Pipelines, as far as the user may see them."""

from collections.abc import Callable, Iterator

from components.shared.cluster import Cluster, KubernetesError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.artifacts import check_artifacts
from pipelines.doctor.cluster.kubeflow import SCHEDULER, SERVER, Installation, find_installation
from pipelines.doctor.cluster.plugin import check_plugin
from pipelines.doctor.cluster.retry import check_retry_rule
from pipelines.doctor.cluster.server import unknown
from pipelines.doctor.cluster.target import Target


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


def check_zone(found: Installation, _: Target) -> Check:
    """Check the time zone of schedules (GetLocation in backend/src/crd/.../util/const.go)."""
    deployment = found.deployment(SCHEDULER)
    zone = found.variables(deployment, ["CRON_SCHEDULE_TIMEZONE"])["CRON_SCHEDULE_TIMEZONE"]
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
