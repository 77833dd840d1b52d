"""How Kubeflow Pipelines is set up here, as far as the caller may see it."""

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
    """What the caller may see of it; each thing that it may not is unknown.

    Raises:
        KubernetesError: If nothing answers.
    """
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
        told = f"the namespace {found.namespace} lacks what tells: {', '.join(absent)}"
        yield Check("KFP settings", "unknown", told, advice)


def check_zone(found: Installation, target: Target) -> Check:
    """The zone of schedules' times (GetLocation in backend/src/crd/.../util/const.go)."""
    del target
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
    """Users that KFP forces on pods, against those of the profile and the namespace.

    What is set here goes before what a pipeline says (extendPodSpecPatch in
    backend/src/v2/driver/k8s.go); PIPELINE_RUN_AS_USER is of every other container.
    """
    prefix = "DEFAULT_SECURITY_CONTEXT_RUN_AS"
    every, user, non_root = "PIPELINE_RUN_AS_USER", f"{prefix}_USER", f"{prefix}_NON_ROOT"
    values = found.variables(found.deployment(SERVER), [every, user, f"{prefix}_GROUP", non_root])
    given = {name: text for name, text in values.items() if text}
    told = ", ".join(f"{name}={text}" for name, text in given.items())
    if "0" in (given.get(every), given.get(user)) or given.get(non_root, "").lower() == "false":
        advice = "take it out of pipeline-install-config: restricted namespaces refuse such pods"
        return Check("pod users", "error", f"Kubeflow sets {told}", advice)
    profiles = {str(each.user) for each in target.profile.steps.values()}
    if user in given and profiles != {given[user]}:
        advice = f"set user: {given[user]} in the profile, which now says {', '.join(profiles)}"
        return Check("pod users", "warning", f"Kubeflow sets {told}", advice)
    return Check("pod users", "ok", f"Kubeflow sets {told or 'none: those of the profile hold'}")
