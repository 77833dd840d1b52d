"""Checks of the Secrets and ConfigMaps of the steps' pods. No value is ever shown."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from components.shared.cluster import Cluster, Json, KubernetesError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target
from pipelines.placement.profiles import PodSettings

_PULL_KEY = ".dockerconfigjson"


class Source(NamedTuple):
    """A Secret or ConfigMap that a step names; without `keys`, the step reads all of them."""

    kind: str
    name: str
    keys: frozenset[str]
    optional: bool = False


def check_sources(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that they exist, with the keys that steps read."""
    wanted: dict[tuple[str, str], list[Source]] = {}
    for source in dict.fromkeys(_sources(target.profile.steps.values())):
        wanted.setdefault((source.kind, source.name), []).append(source)
    for (kind, name), sources in wanted.items():
        yield _check(cluster, kind, name, sources)


def _sources(steps: Iterable[PodSettings]) -> Iterator[Source]:
    for step in steps:
        for kind, named in (("ConfigMap", step.config), ("Secret", step.secrets)):
            for each in named:
                yield Source(kind, each.name, frozenset(each.env.values()), each.optional)
        for files in step.files:
            yield Source("ConfigMap", files.name, frozenset(), files.optional)
        yield from (Source("Secret", name, frozenset({_PULL_KEY})) for name in step.pull_secrets)


def _check(cluster: Cluster, kind: str, name: str, sources: list[Source]) -> Check:
    title = f"{kind} {name}"
    needed = frozenset[str]().union(*(each.keys for each in sources if not each.optional))
    try:
        values = _values(cluster.get(f"{kind.lower()}s/{name}"), kind)
    except KubernetesError as error:
        if error.status == 404:
            return _check_absent(kind, name, sources, needed)
        if error.status == 403:
            look = f"kubectl -n {cluster.namespace} describe {kind} {name}"
            advice = f"ask someone who may see it: {look}"
            return Check("settings", "unknown", str(error), advice)
        raise
    # of an optional source all keys or none, as a key and its secret
    given = [each for each in sources if not each.optional or each.keys & set(values)]
    wanted = frozenset[str]().union(*(each.keys for each in given))
    missing = sorted(key for key in wanted if not values.get(key))
    if missing:
        found = f"{title} has no value for {', '.join(missing)}"
        stop = not needed.isdisjoint(missing)
        advice = f"add it{': steps do not start without' if stop else ', or delete what is there'}"
        return Check("settings", "error", found, advice)
    # a name, key or address with a line break in it is refused wherever it is sent
    if ended := sorted(key for key in wanted - {_PULL_KEY} if values[key].endswith(b"\n")):
        advice = "create it again from a file without one: printf %s VALUE > FILE"
        return Check("settings", "error", f"{title}: a line break ends {', '.join(ended)}", advice)
    found = f"{title} has {', '.join(sorted(wanted)) or 'all that is wanted'}"
    return Check("settings", "ok", found)


def _values(content: Json, kind: str) -> Mapping[str, bytes]:
    plain: Mapping[str, str] = content.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(text) for key, text in plain.items()}
    binary: Mapping[str, str] = content.get("binaryData") or {}
    encoded = {key: base64.b64decode(text) for key, text in binary.items()}
    return {key: text.encode() for key, text in plain.items()} | encoded


def _check_absent(kind: str, name: str, sources: list[Source], needed: Iterable[str]) -> Check:
    if all(each.optional for each in sources):
        return Check("settings", "ok", f"{kind} {name} is not there, and is optional")
    if kind == "ConfigMap":
        advice = "kubectl apply -k with an overlay of manifests/ creates it"
    else:
        keys = " ".join(f"--from-file={key}=FILE" for key in sorted(needed))
        advice = f"kubectl create secret generic {name} {keys}"
    return Check("settings", "error", f"there is no {kind} {name}", advice)
