"""Checks of the API server, its clock and the namespace of runs."""

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from components.shared.cluster import Cluster, KubernetesError
from components.shared.errors import UserError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target

# a group's Job says which failures count by podFailurePolicy, which is stable since then
_OLDEST = (1, 31)
_ANONYMOUS = "system:anonymous"

# S3 refuses requests that are 15 minutes off (RequestTimeTooSkewed); tokens are more patient
_SKEW_ERROR_S, _SKEW_WARNING_S = 900.0, 60.0

_ENFORCE = "pod-security.kubernetes.io/enforce"


def check_server(cluster: Cluster) -> Iterator[Check]:
    """Check that the API server knows the user, and its version and clock.

    Raises `UserError` if it does not answer or does not know the user: no other check can run.
    """
    try:
        user = _user(cluster)
        before = time.time()
        version, headers = cluster.ask("GET", "/version")
        now = (before + time.time()) / 2
    except KubernetesError as error:
        raise _refusal(cluster, error) from error
    found = f"{version['gitVersion']} at {cluster.address}, as {user}"
    if is_older(version["gitVersion"], _OLDEST):
        advice = f"update it to {'.'.join(map(str, _OLDEST))} or later, which pod groups need"
        yield Check("Kubernetes", "warning", found, advice)
    else:
        yield Check("Kubernetes", "ok", found)
    if "Date" in headers:
        date = parsedate_to_datetime(headers["Date"]).timestamp() + 0.5  # it has whole seconds
        yield check_clock("clock", "the API server", date - now)


def check_namespace(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that the namespace exists and enforces the standard "restricted"."""
    name = target.namespace
    found = cluster.find(f"/api/v1/namespaces/{name}")
    if found is None:
        advice = "give another by --namespace, or create it: see docs/get-started/cluster.md"
        yield Check("namespace", "error", f"there is no namespace {name}", advice)
        return
    if found["status"]["phase"] == "Terminating":
        advice = "wait until it is gone and create it again"
        yield Check("namespace", "error", f"{name} is being deleted", advice)
        return
    level = found["metadata"].get("labels", {}).get(_ENFORCE, "")
    if level == "restricted":
        yield Check("namespace", "ok", f"{name} enforces the Pod Security standard {level}")
        return
    advice = (
        f"runs need no more than restricted: kubectl label namespace {name} {_ENFORCE}="
        "restricted, unless others' pods in it do"
    )
    enforced = f"enforces only {level}" if level else "enforces no Pod Security standard"
    yield Check("namespace", "warning", f"{name} {enforced}", advice)


def check_clock(name: str, whose: str, ahead_s: float) -> Check:
    """Check by how many seconds the clock of `whose` is ahead of this machine's."""
    off_s = abs(ahead_s)
    if off_s < _SKEW_WARNING_S:
        return Check(name, "ok", f"{whose} and this machine agree")
    found = f"{whose} is {off_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    advice = "set both clocks by NTP: S3 refuses requests that are 15 minutes off"
    return Check(name, "error" if off_s >= _SKEW_ERROR_S else "warning", found, advice)


def is_older(version: str, oldest: tuple[int, int]) -> bool:
    """Return whether a version such as v1.35.4 is below a minimum; an unknown one is not."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    return bool(numbers) and tuple(map(int, numbers.groups())) < oldest  # type: ignore[union-attr]


def unknown(name: str, error: KubernetesError) -> Check:
    """Return the check of something that the API server does not show."""
    if error.status == 403:
        advice = "ask someone who may look, or have this right given to you"
    else:
        advice = "try again; if it stays so, ask the cluster's administrator"
    return Check(name, "unknown", str(error), advice)


def _refusal(cluster: Cluster, error: KubernetesError) -> UserError:
    if error.status in (401, 403):
        return UserError(
            f"Kubernetes at {cluster.address} does not know who asks ({error.status}): the "
            "kubeconfig's token or certificate is missing or has expired; log in again with the "
            "tool that wrote the kubeconfig, or choose another context"
        )
    return UserError(
        f"Kubernetes at {cluster.address} cannot be asked: {error}; check the network or VPN, and "
        "the context: `kubectl config current-context`"
    )


def _user(cluster: Cluster) -> str:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    try:
        answer = cluster.create(path, {"kind": "SelfSubjectReview"})
    except KubernetesError as error:
        if error.status == 404:  # before 1.28
            return "someone"
        raise
    user = str(answer["status"]["userInfo"]["username"])
    if user == _ANONYMOUS:
        raise KubernetesError("the request had no credentials", 401)
    return user
