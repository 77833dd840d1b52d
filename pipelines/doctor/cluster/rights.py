"""Checks of the rights of the user and of the runs' ServiceAccount."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from components.shared.cluster import Cluster, Json, KubernetesError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target

_THREADS = 8
_SELF, _LOCAL = "SelfSubjectAccessReview", "LocalSubjectAccessReview"


@dataclass(frozen=True)
class Right:
    """A rule of a Role, with its reason for messages."""

    group: str  # empty for the core API
    resource: str  # plural, perhaps with a subresource: pods/log
    verbs: str  # separated by spaces
    why: str
    name: str = ""  # of the only object; empty for all
    outside: bool = False  # True for a resource without a namespace
    only_for: str = ""  # backend of pod groups that alone needs it; empty for every run

    @property
    def object(self) -> str:
        """Resource as `kubectl` writes it: deployments.apps/NAME."""
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{kind}/{self.name}" if self.name else kind

    def attributes(self, verb: str, namespace: str) -> Json:
        """The fields of an access review."""
        resource, _, part = self.resource.partition("/")
        place = {"namespace": "" if self.outside else namespace, "name": self.name, "verb": verb}
        return {**place, "group": self.group, "resource": resource, "subresource": part}


_FOR_WAIT = "`submit --wait` reports what tasks wait for"
OWN = (
    Right("", "pods", "create get delete", "images, store and MLflow are tried from a pod"),
    Right("", "secrets", "get", "their keys are compared with the profile"),
    Right("", "configmaps", "get", "their keys are compared with the profile"),
    Right("", "serviceaccounts", "get", "the account of runs is looked at"),
    Right("", "resourcequotas", "list", "they are compared with what steps need"),
    Right("", "limitranges", "list", "they are compared with what steps need"),
    Right("authorization.k8s.io", "localsubjectaccessreviews", "create", "rights of runs"),
    Right("", "nodes", "list", "one is looked for for every step", outside=True),
    Right("", "pods", "list", _FOR_WAIT),
    Right("", "pods/log", "get", "`submit --wait` reports why tasks failed"),
    Right("", "events", "list", _FOR_WAIT),
    Right("argoproj.io", "workflows", "list", _FOR_WAIT),
)

_TRAINER, _GROUP = "trainer.kubeflow.org", "a step starts and ends its group"

# As in manifests/base/access/brainseg-run-role.yaml, where each has its source. A test keeps both
# equal: the installed package has no manifests, and they know neither reasons nor backends
RUNS = (
    Right("", "configmaps", "get", "KFP reads the pipeline root", "kfp-launcher"),
    Right("", "secrets", "get", "KFP opens its artifact bucket", "mlpipeline-minio-artifact"),
    Right("argoproj.io", "workflows", "get", "KFP's driver finds the run's times"),
    Right("argoproj.io", "workflowtaskresults", "create patch", "Argo reports how steps ended"),
    Right("", "pods", "get list watch", "KFP looks up its own pod, a step its group"),
    Right("", "pods/log", "get", "a step follows its group", only_for="job"),
    Right("", "events", "list", "a step reports what its group waits for", only_for="job"),
    Right("", "services", "create", _GROUP, only_for="job"),
    Right("batch", "jobs", "create get patch delete", _GROUP, only_for="job"),
    Right(_TRAINER, "trainjobs", "create get patch delete", _GROUP, only_for="trainjob"),
    Right(_TRAINER, "trainingruntimes", "create get patch delete", _GROUP, only_for="trainjob"),
)


def check_own_rights(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check the user's rights: checks without them stay unknown."""
    if missing := _missing(OWN, target.namespace, partial(_allowed, cluster, _SELF)):
        advice = "what needs it stays unknown; the ClusterRoles admin and view give most of it"
        yield Check("your rights", "unknown", f"you may not {missing}", advice)
    else:
        yield Check("your rights", "ok", "you may see all that runs need")


def check_run_rights(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that the runs' ServiceAccount exists and may do everything that runs do."""
    name = target.service_account
    account = cluster.find(f"serviceaccounts/{name}")
    if account is None:
        advice = "kubectl apply -k with an overlay of manifests/, or name another account"
        yield Check("run's rights", "error", f"there is no ServiceAccount {name}", advice)
        return
    if account.get("automountServiceAccountToken") is False:
        advice = "set automountServiceAccountToken: true; Argo and KFP ask Kubernetes from pods"
        yield Check("run's rights", "error", f"{name} gives its pods no token", advice)
    used = {"", "job", target.group.backend} if target.group else {""}
    rules = [each for each in RUNS if each.only_for in used]
    if missing := missing_of_runs(cluster, target, rules):
        advice = "kubectl apply -f manifests/base/access/ in this namespace"
        yield Check("run's rights", "error", f"{name} may not {missing}", advice)
    else:
        yield Check("run's rights", "ok", f"{name} may do all that runs do")


def missing_of_runs(cluster: Cluster, target: Target, rights: Iterable[Right]) -> str:
    """Return the rights that the runs' ServiceAccount lacks, in words; empty if none."""
    return _missing(rights, target.namespace, _asker(cluster, target.service_account))


def _missing(rights: Iterable[Right], namespace: str, may: Callable[[Json], bool]) -> str:
    """The rights that are missing, in words; empty if none is."""
    asked = [(right, verb) for right in rights for verb in right.verbs.split()]
    questions = [right.attributes(verb, namespace) for right, verb in asked]
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = list(pool.map(may, questions))
    refused: dict[Right, list[str]] = {}
    for (right, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            refused.setdefault(right, []).append(verb)
    return "; ".join(
        f"{', '.join(verbs)} {right.object} ({right.why})" for right, verbs in refused.items()
    )


def _asker(cluster: Cluster, account: str) -> Callable[[Json], bool]:
    """A question about an account's rights: by a review of it, or by impersonation."""
    user, everyone = (
        f"system:serviceaccount:{cluster.namespace}:{account}",
        "system:serviceaccounts",
    )
    groups = [everyone, f"{everyone}:{cluster.namespace}", "system:authenticated"]
    about = partial(_allowed, cluster, _LOCAL, user=user, groups=groups)
    try:
        about(RUNS[0].attributes("get", cluster.namespace))
    except KubernetesError as error:
        if error.status != 403:
            raise
        return partial(_allowed, cluster, _SELF, headers={"Impersonate-User": user})
    return about


def _allowed(
    cluster: Cluster, kind: str, attributes: Json, headers: Json | None = None, **who: object
) -> bool:
    is_local = kind == _LOCAL
    place = f"namespaces/{cluster.namespace}/" if is_local else ""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"namespace": cluster.namespace} if is_local else {},
        "spec": {"resourceAttributes": attributes, **who},
    }
    path = f"/apis/authorization.k8s.io/v1/{place}{kind.lower()}s"
    return bool(cluster.create(path, review, headers)["status"]["allowed"])
