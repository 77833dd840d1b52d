"""Checks of the Secrets and ConfigMaps of the steps' pods. No value is ever shown."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from components.shared.cluster import Cluster, KubernetesError
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target
from pipelines.placement.profiles import EnvSource, PodSettings

Values = Mapping[str, bytes]

_PULL_KEY = ".dockerconfigjson"


@dataclass(frozen=True)
class Source:
    """A Secret or ConfigMap that a step names.

    Attributes:
        kind: `Secret` or `ConfigMap`.
        name: Name of the object.
        keys: Keys that the step reads; empty for all.
        optional: True if pods start without it, or without a key.
    """

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
        yield from (_of("ConfigMap", each) for each in step.config)
        yield from (_of("Secret", each) for each in step.secrets)
        for files in step.files:
            yield Source("ConfigMap", files.name, frozenset(), files.optional)
        yield from (Source("Secret", name, frozenset({_PULL_KEY})) for name in step.pull_secrets)


def _of(kind: str, source: EnvSource) -> Source:
    return Source(kind, source.name, frozenset(source.env.values()), source.optional)


def _check(cluster: Cluster, kind: str, name: str, sources: list[Source]) -> Check:
    title, place = f"{kind} {name}", f"{kind.lower()}s/{name}"
    needed = frozenset[str]().union(*(each.keys for each in sources if not each.optional))
    try:
        values = _values(cluster, place, kind)
    except KubernetesError as error:
        if error.status == 404:
            return _check_absent(title, kind, name, sources, needed)
        if error.status == 403:
            advice = (
                f"ask someone who may see it: kubectl -n {cluster.namespace} describe {kind} {name}"
            )
            return Check("settings", "unknown", str(error), advice)
        raise
    wanted = [keys for each in sources if (keys := _wanted(each, values))]
    missing = sorted({key for keys in wanted for key in keys if not values.get(key)})
    if missing:
        found = f"{title} has no value for {', '.join(missing)}"
        stop = not needed.isdisjoint(missing)
        advice = f"add it{': steps do not start without' if stop else ', or delete what is there'}"
        return Check("settings", "error", found, advice)
    return _check_values(title, {key: values[key] for keys in wanted for key in keys})


def _values(cluster: Cluster, place: str, kind: str) -> Values:
    content = cluster.get(place)
    data: Mapping[str, str] = content.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(text) for key, text in data.items()}
    binary: Mapping[str, str] = content.get("binaryData") or {}
    return {key: text.encode() for key, text in data.items()} | {
        key: base64.b64decode(text) for key, text in binary.items()
    }


def _wanted(source: Source, values: Values) -> frozenset[str]:
    """The keys that must exist: of an optional source all or none, as a key and its secret."""
    if source.optional and not source.keys & set(values):
        return frozenset()
    return source.keys


def _check_absent(
    title: str, kind: str, name: str, sources: list[Source], needed: Iterable[str]
) -> Check:
    if all(each.optional for each in sources):
        return Check("settings", "ok", f"{title} is not there, and is optional")
    if kind == "ConfigMap":
        advice = "kubectl apply -k with an overlay of manifests/ creates it"
    else:
        keys = " ".join(f"--from-file={key}=FILE" for key in sorted(needed))
        advice = f"kubectl create secret generic {name} {keys}"
    return Check("settings", "error", f"there is no {title}", advice)


def _check_values(title: str, values: Values) -> Check:
    found = f"{title} has {', '.join(sorted(values)) or 'all that is wanted'}"
    # a name, key or address with a line break in it is refused wherever it is sent
    lines = (key for key, value in values.items() if key != _PULL_KEY and value.endswith(b"\n"))
    if ended := sorted(lines):
        advice = "create it again from a file without one: printf %s VALUE > FILE"
        return Check("settings", "error", f"{title}: a line break ends {', '.join(ended)}", advice)
    return Check("settings", "ok", found)
