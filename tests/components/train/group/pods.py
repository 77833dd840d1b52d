"""The step's own pod and what KFP passes on, as they are in a cluster."""

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
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
                "resources": {"limits": {"cpu": "1"}},
                "env": [{"name": "ARGO_TEMPLATE", "value": "{}"}],
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

# dsl.TaskConfig's fields, see backend/src/v2/driver/k8s.go at 2.17.0
TASK_CONFIG = {
    "affinity": None,
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "node_selector": {"pool": "gpu"},
    "env": [
        {"name": "OMP_NUM_THREADS", "value": "4"},
        {
            "name": "BRAINSEG_AWS_ACCESS_KEY_ID",
            "valueFrom": {"secretKeyRef": {"name": "brainseg-store", "key": "AWS_ACCESS_KEY_ID"}},
        },
        {
            "name": "KFP_RUN_ID",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}},
        },
    ],
    "volumes": [{"name": "brainseg-ca", "configMap": {"name": "brainseg-ca", "optional": True}}],
    "volume_mounts": [{"name": "brainseg-ca", "mountPath": "/etc/brainseg/ca"}],
    "resources": {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
    },
}
