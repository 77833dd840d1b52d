"""The pods that KFP's compiler and driver make of a compiled task.

Read at 2.17.0: backend/src/v2/compiler/argocompiler/container.go (scratch folders, init
container, environment), security_context.go, backend/src/v2/driver/driver.go (command,
resources) and k8s.go (what the platform spec adds). Fields that our profiles do not use are
refused, so that none is lost here in silence.
"""

_SCRATCH = ("/gcs", "/s3", "/minio", "/.local", "/.cache", "/.config")
_NO_PRIVILEGES = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SMALL = {"cpu": "10m", "memory": "32Mi"}


def pod_template(container, platform, *, command, run_id, read_only_root=True):
    """A pod as the backend would make it.

    Args:
        container: The executor's container in the compiled pipeline.
        platform: The executor's entry in the platform spec.
        command: What runs in the container after the launcher.
        run_id: Of the pipeline run.
        read_only_root: Harder than KFP, which cannot set it: the images promise it.
    """
    unknown = platform.keys() - _HANDLED
    assert not unknown, f"the stand-in for KFP's driver does not know {unknown}"
    metadata = platform.get("podMetadata", {})
    volumes, mounts = _volumes(platform)
    main = {
        "name": "main",
        "image": container["image"],
        "imagePullPolicy": platform.get("imagePullPolicy", "IfNotPresent"),
        "command": ["/opt/brainseg/bin/python", "/kfp-launcher/launch"],
        "args": command,
        "env": _env(container, platform),
        "resources": _resources(container.get("resources")),
        "securityContext": {
            **_NO_PRIVILEGES,
            "readOnlyRootFilesystem": read_only_root,
            **_numbers(platform.get("securityContext", {})),
        },
        "volumeMounts": mounts,
    }
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": "brainseg-run",
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_init_container(container, platform)],
        "containers": [main],
        "volumes": volumes,
        "activeDeadlineSeconds": int(platform["activeDeadlineSeconds"]),
        "nodeSelector": platform.get("nodeSelector", {}).get("labels", {}),
        "tolerations": platform.get("tolerations", []),
        "imagePullSecrets": [
            {"name": each["secretName"]} for each in platform.get("imagePullSecret", [])
        ],
        "affinity": _affinity(platform.get("nodeAffinity", [])),
    }
    labels = {"pipeline/runid": run_id, "pipelines.kubeflow.org/v2_component": "true"}
    return {
        "metadata": {
            "labels": {**metadata.get("labels", {}), **labels},
            "annotations": metadata.get("annotations", {}),
        },
        "spec": spec,
    }


_HANDLED = {
    "activeDeadlineSeconds",
    "configMapAsEnv",
    "configMapAsVolume",
    "emptyDirMounts",
    "fieldPathAsEnv",
    "imagePullPolicy",
    "imagePullSecret",
    "nodeAffinity",
    "nodeSelector",
    "podMetadata",
    "secretAsEnv",
    "securityContext",
    "tolerations",
}


def _numbers(context):
    """Protobuf's JSON writes 64-bit numbers as strings."""
    return {key: int(value) if isinstance(value, str) else value for key, value in context.items()}


def _init_container(container, platform):
    return {
        "name": "kfp-launcher",
        "image": container["image"],  # the real one is KFP's own image
        "imagePullPolicy": platform.get("imagePullPolicy", "IfNotPresent"),
        "command": ["cp", "/launcher-source/launcher.py", "/kfp-launcher/launch"],
        "resources": {"requests": _SMALL, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": {
            **_NO_PRIVILEGES,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
            {"name": "launcher-source", "mountPath": "/launcher-source"},
        ],
    }


def _env(container, platform):
    named = [("KFP_POD_NAME", "metadata.name"), ("KFP_POD_UID", "metadata.uid")]
    fields = [(each["name"], each["fieldPath"]) for each in platform.get("fieldPathAsEnv", [])]
    return [
        *container.get("env", []),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in named + fields
        ),
        *_references(platform.get("configMapAsEnv", []), kind="configMap"),
        *_references(platform.get("secretAsEnv", []), kind="secret"),
    ]


def _references(sources, *, kind):
    for source in sources:
        for pair in source["keyToEnv"]:
            reference = {
                "name": source[f"{kind}Name"],
                "key": pair[f"{kind}Key"],
                "optional": source.get("optional", False),
            }
            yield {"name": pair["envVar"], "valueFrom": {f"{kind}KeyRef": reference}}


def _resources(resources):
    if resources is None:
        return {}
    limits = {
        "cpu": resources["resourceCpuLimit"],
        "memory": resources["resourceMemoryLimit"],
    }
    if accelerator := resources.get("accelerator"):
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    requests = {
        "cpu": resources["resourceCpuRequest"],
        "memory": resources["resourceMemoryRequest"],
    }
    return {"requests": requests, "limits": limits}


def _volumes(platform):
    volumes = [
        {"name": "kfp-launcher", "emptyDir": {}},
        {"name": "launcher-source", "configMap": {"name": "kfp-launcher-source"}},
    ]
    mounts = [{"name": "kfp-launcher", "mountPath": "/kfp-launcher"}]
    for path in _SCRATCH:
        name = path.strip("/").replace(".", "dot-") + "-scratch"
        volumes.append({"name": name, "emptyDir": {}})
        mounts.append({"name": name, "mountPath": path})
    for each in platform.get("emptyDirMounts", []):
        folder = {"sizeLimit": each["sizeLimit"], "medium": each.get("medium", "")}
        volumes.append({"name": each["volumeName"], "emptyDir": folder})
        mounts.append({"name": each["volumeName"], "mountPath": each["mountPath"]})
    more_volumes, more_mounts = _config_map_volumes(platform)
    return volumes + more_volumes, mounts + more_mounts


def _config_map_volumes(platform):
    volumes, mounts = [], []
    for each in platform.get("configMapAsVolume", []):
        name, optional = each["configMapName"], each.get("optional", False)
        volumes.append({"name": name, "configMap": {"name": name, "optional": optional}})
        mounts.append({"name": name, "mountPath": each["mountPath"]})
    return volumes, mounts


def _affinity(terms):
    needed = [_term(each) for each in terms if "weight" not in each]
    liked = [
        {"weight": each["weight"], "preference": _term(each)} for each in terms if "weight" in each
    ]
    when = "DuringSchedulingIgnoredDuringExecution"
    node = {}
    if needed:
        node[f"required{when}"] = {"nodeSelectorTerms": needed}
    if liked:
        node[f"preferred{when}"] = liked
    return {"nodeAffinity": node} if node else {}


def _term(term):
    return {"matchExpressions": term["matchExpressions"]}
