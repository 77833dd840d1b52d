"""Checks of everything that a run on a cluster needs."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from components.shared.cluster import Cluster, KubernetesError, connect
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.installation import check_installation
from pipelines.doctor.cluster.kubeflow import check_api
from pipelines.doctor.cluster.nodes import check_nodes
from pipelines.doctor.cluster.probe import check_pods
from pipelines.doctor.cluster.queues import check_queues, check_trainer
from pipelines.doctor.cluster.quota import check_quota
from pipelines.doctor.cluster.rights import check_own_rights, check_run_rights
from pipelines.doctor.cluster.server import check_namespace, check_server, unknown
from pipelines.doctor.cluster.sources import check_sources
from pipelines.doctor.cluster.target import Target

Look = Callable[[Cluster, Target], Iterable[Check]]
"""Any of them may raise `KubernetesError`: what it checks is unknown then."""

_LIMIT_S = 45.0  # with deleting the pods, all checks are to take less than a minute
_AT_ONCE = 4

_OF_NAMESPACE: dict[str, Look] = {
    "your rights": check_own_rights,
    "run's rights": check_run_rights,
    "settings": check_sources,
    "quota": check_quota,
    "queue": check_queues,
}
_OF_CLUSTER: dict[str, Look] = {
    "nodes": check_nodes,
    "Trainer": check_trainer,
    "Kubeflow": check_api,
    "KFP settings": check_installation,
}


def run_cluster_checks(target: Target, limit_s: float = _LIMIT_S) -> list[Check]:
    """Check everything that a run on a cluster needs, in less than a minute.

    Starts pods that try the images, the store and MLflow, and deletes them in every case. A check
    without an answer within `limit_s` seconds is unknown.

    Raises:
        UserError: If no cluster is named, or it does not answer.
    """
    cluster = connect(target.namespace, limit_s)
    first = [*check_server(cluster), *_seen("namespace", check_namespace, cluster, target)]
    is_there = first[-1].status != "error"
    looks = {**(_OF_NAMESPACE if is_there else {}), **_OF_CLUSTER}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        others = [pool.submit(_seen, name, look, cluster, target) for name, look in looks.items()]
        # in this thread, the one that Ctrl-C interrupts: it deletes its pods
        probed = _seen("pods", check_pods, cluster, target) if is_there else []
        return [*first, *(check for each in others for check in each.result()), *probed]


def _seen(name: str, look: Look, cluster: Cluster, target: Target) -> list[Check]:
    try:
        return list(look(cluster, target))
    except KubernetesError as error:
        return [unknown(name, error)]
