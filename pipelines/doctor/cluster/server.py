"""The API server: its version, who asks, and its clock."""

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from components.shared.cluster import Cluster, KubernetesError
from components.shared.errors import UserError
from pipelines.doctor.check import Check

_LOGIN = "log in again with the tool that wrote the kubeconfig, or choose another context"
_OLDEST = (1, 31)  # a group's Job says which failures count: podFailurePolicy, stable since
_ANONYMOUS = "system:anonymous"

# S3 refuses requests that are 15 minutes off (RequestTimeTooSkewed); tokens are more patient
_SKEW_ERROR_S, _SKEW_WARNING_S = 900.0, 60.0


def check_server(cluster: Cluster) -> Iterator[Check]:
    """Whether there is a cluster that knows who asks.

    Raises:
        UserError: If not: nothing else can be found out then.
    """
    try:
        user = _user(cluster)
        before = time.time()
        version, headers = cluster.ask("GET", "/version")
        now = (before + time.time()) / 2
    except KubernetesError as error:
        raise _refusal(cluster, error) from error
    yield _check_version(str(version["gitVersion"]), f"{cluster.address}, as {user}")
    if "Date" in headers:
        date = parsedate_to_datetime(headers["Date"]).timestamp() + 0.5  # it has whole seconds
        yield check_clock("clock", "the API server", date - now)


def unknown(name: str, error: KubernetesError) -> Check:
    """The check of something that the API server does not show."""
    if error.status == 403:
        advice = "ask someone who may look, or have this right given to you"
    else:
        advice = "try again; if it stays so, ask who runs the cluster"
    return Check(name, "unknown", str(error), advice)


def check_clock(name: str, whose: str, ahead_s: float) -> Check:
    """What a difference of clocks means.

    Args:
        name: Of the check.
        whose: Clock that is compared with this machine's.
        ahead_s: By how many seconds it is ahead.
    """
    off_s = abs(ahead_s)
    if off_s < _SKEW_WARNING_S:
        return Check(name, "ok", f"{whose} and this machine agree")
    found = f"{whose} is {off_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    advice = "set both clocks by NTP: S3 refuses requests that are 15 minutes off"
    return Check(name, "error" if off_s >= _SKEW_ERROR_S else "warning", found, advice)


def _refusal(cluster: Cluster, error: KubernetesError) -> UserError:
    if error.status in (401, 403):
        return UserError(
            f"Kubernetes at {cluster.address} does not know who asks ({error.status}): the "
            f"kubeconfig's token or certificate is missing or has expired; {_LOGIN}"
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


def _check_version(version: str, where: str) -> Check:
    found = f"{version} at {where}"
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return Check("Kubernetes", "warning", found, f"{oldest} or later is what this is made for")
    return Check("Kubernetes", "ok", found)
