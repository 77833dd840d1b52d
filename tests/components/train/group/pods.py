"""The step's own pod as it is in a cluster, and the pods' settings."""

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "train-1", "uid": "0b1c"}

OWN_POD = {
    "metadata": {"name": "train-1", "uid": "0b1c", "labels": {"pipeline/runid": "run-1"}},
    "spec": {
        "serviceAccountName": "brainseg-run",
        "imagePullSecrets": [{"name": "registry"}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {"name": "wait", "image": "argoexec"},
            {
                "name": "main",
                "image": "r.example/brainseg-trainer-python@sha256:0",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {"runAsUser": 1234, "runAsGroup": 1000},
                "resources": {"limits": {"cpu": "1"}},
                "env": [
                    {"name": "ARGO_TEMPLATE", "value": "{}"},
                    {"name": "SSL_CERT_FILE", "value": "/kfp/certs/ca.crt"},
                    {"name": "MLFLOW_RUN_ID", "value": "of-the-task"},
                    {"name": "https_proxy", "value": "http://proxy"},
                ],
                "volumeMounts": [
                    {"name": "var-run-argo", "mountPath": "/var/run/argo"},
                    {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "cache", "mountPath": "/cache"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            },
        ],
        "volumes": [
            {"name": "var-run-argo", "emptyDir": {}},
            {"name": "kfp-launcher", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "2Gi"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
    },
}

# as pipelines.placement.pod makes it of a profile
FRAGMENT = {
    "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
    "spec": {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeSelector": {"pool": "gpu"},
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "2Gi"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "files-0", "configMap": {"name": "brainseg-ca", "optional": True}},
        ],
        "containers": [
            {
                "name": "main",
                "imagePullPolicy": "IfNotPresent",
                "env": [
                    {"name": "OMP_NUM_THREADS", "value": "4"},
                    {
                        "name": "BRAINSEG_AWS_ACCESS_KEY_ID",
                        "valueFrom": {
                            "secretKeyRef": {"name": "brainseg-store", "key": "AWS_ACCESS_KEY_ID"}
                        },
                    },
                ],
                "resources": {
                    "requests": {"cpu": "4", "memory": "16Gi"},
                    "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "cache", "mountPath": "/cache"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                    {"name": "files-0", "mountPath": "/etc/brainseg/ca"},
                ],
                "securityContext": {
                    "runAsUser": 1000,
                    "runAsGroup": 1000,
                    "runAsNonRoot": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ],
    },
}
