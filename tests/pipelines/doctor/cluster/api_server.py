"""A small API server: what `doctor --cluster` reads, in the shapes that Kubernetes 1.35 gives."""

import base64
import json
import re
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Json = dict[str, Any]

OF_RUNS = "/api/v1/namespaces/brainseg"
OF_KFP = "/api/v1/namespaces/kubeflow"
PROXY = f"{OF_KFP}/services/ml-pipeline:http/proxy//apis/v2beta1/healthz"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kubeflow/deployments"
ENDED_WELL = json.dumps(
    {
        "checks": [
            {"name": name, "status": "ok", "found": "it answers", "advice": ""}
            for name in ("store", "MLflow")
        ]
    }
)


def encoded(**values: str) -> Json:
    return {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}


def listed(*items: Json) -> Json:
    return {"kind": "List", "items": list(items)}


def named(name: str, **content: object) -> Json:
    return {"metadata": {"name": name}, **content}


def node(name: str = "test", **allocatable: str) -> Json:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "16", "memory": "65809920Ki", "pods": "110", **allocatable},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True"},
            ],
        },
    }


def deployment(name: str, env: list[Json], **spec: object) -> Json:
    container = {"name": name, "image": f"ghcr.io/kubeflow/{name}:2.17.0", "env": env}
    pod = {"containers": [container], "volumes": [], **spec}
    return {
        "metadata": {"name": name, "namespace": "kubeflow"},
        "spec": {"template": {"spec": pod}},
    }


def from_install_config(name: str, key: str) -> Json:
    reference = {"name": "pipeline-install-config", "key": key, "optional": True}
    return {"name": name, "valueFrom": {"configMapKeyRef": reference}}


def waiting(reason: str, message: str = "") -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [_container_status(state)]}


def terminated(phase: str, message: str, **state: object) -> Json:
    state = {"exitCode": 0 if phase == "Succeeded" else 1, "message": message, **state}
    return {"phase": phase, "containerStatuses": [_container_status({"terminated": state})]}


def unschedulable(message: str) -> Json:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"phase": "Pending", "conditions": [{**condition, "message": message}]}


def _container_status(state: Json) -> Json:
    facts = {"image": "brainseg", "imageID": "", "ready": False, "restartCount": 0}
    return {"name": "probe", "state": state, **facts}


def everything() -> dict[str, Json]:
    """The objects of a cluster on which a run would go well."""
    mlflow = {"endpoint": "http://mlflow.brainseg:5000", "settings": {"authType": "basic-auth"}}
    server = deployment(
        "ml-pipeline",
        [
            {"name": "COMPILED_PIPELINE_SPEC_PATCH", "value": "{}"},
            from_install_config(
                "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER", "defaultSecurityContextRunAsUser"
            ),
        ],
        volumes=[{"name": "config", "configMap": {"name": "kfp-config"}}],
    )
    server["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "config", "mountPath": "/config/config.json", "subPath": "config.json"}
    ]
    scheduler = deployment(
        "ml-pipeline-scheduledworkflow",
        [from_install_config("CRON_SCHEDULE_TIMEZONE", "cronScheduleTimezone")],
    )
    rule = {"limit": "2", "retryPolicy": "Always", "expression": SPARING}
    defaults = {"spec": {"templateDefaults": {"retryStrategy": rule}}}
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.4"},
        OF_RUNS: {"metadata": {"labels": level}, "status": {"phase": "Active"}},
        f"{OF_RUNS}/serviceaccounts/brainseg-run": named("brainseg-run"),
        f"{OF_RUNS}/configmaps/brainseg-settings": named(
            "brainseg-settings",
            data={
                "MLFLOW_TRACKING_URI": "http://mlflow.brainseg:5000",
                "BRAINSEG_AWS_ENDPOINT_URL_S3": "https://s3.example",
                "BRAINSEG_AWS_REGION": "eu-west-1",
            },
        ),
        f"{OF_RUNS}/secrets/brainseg-store": named(
            "brainseg-store",
            data=encoded(AWS_ACCESS_KEY_ID="the-id", AWS_SECRET_ACCESS_KEY="the-key"),
        ),
        f"{OF_RUNS}/secrets/brainseg-mlflow": named(
            "brainseg-mlflow", data=encoded(username="the-user", password="the-password")
        ),
        f"{OF_RUNS}/secrets/mlpipeline-minio-artifact": named(
            "mlpipeline-minio-artifact", data=encoded(accesskey="a", secretkey="b")
        ),
        f"{OF_RUNS}/resourcequotas": listed(
            named(
                "brainseg",
                spec={"hard": dict(QUOTA)},
                status={"hard": dict(QUOTA), "used": {"pods": "3", "requests.cpu": "150m"}},
            )
        ),
        f"{OF_RUNS}/limitranges": listed(
            named(
                "brainseg",
                spec={
                    "limits": [
                        {
                            "type": "Container",
                            "default": {"cpu": "1", "memory": "512Mi"},
                            "defaultRequest": {"cpu": "50m", "memory": "64Mi"},
                        }
                    ]
                },
            )
        ),
        "/api/v1/nodes": listed(node()),
        "/apis/apps/v1/deployments": listed(server),
        f"{DEPLOYMENTS}/ml-pipeline": server,
        f"{DEPLOYMENTS}/ml-pipeline-scheduledworkflow": scheduler,
        f"{OF_KFP}/configmaps/pipeline-install-config": named(
            "pipeline-install-config",
            data={"cronScheduleTimezone": "UTC", "defaultSecurityContextRunAsUser": ""},
        ),
        f"{OF_KFP}/configmaps/workflow-controller-configmap": named(
            "workflow-controller-configmap", data={"workflowDefaults": yaml.safe_dump(defaults)}
        ),
        f"{OF_KFP}/configmaps/kfp-config": named(
            "kfp-config", data={"config.json": json.dumps({"plugins": {"mlflow": mlflow}})}
        ),
        # as newHealthzResponse in backend/src/apiserver/main.go at 2.17.0 writes it
        PROXY: {"commit_sha": "1234567", "tag_name": "2.17.0", "multi_user": True},
    }


SPARING = "not (lastRetry.message matches 'exit code [0-9]+[)]: brainseg error: ')"
QUOTA = {
    "requests.cpu": "32",
    "requests.memory": "128Gi",
    "limits.cpu": "96",
    "limits.memory": "256Gi",
    "requests.nvidia.com/gpu": "0",
    "pods": "100",
}


@dataclass
class ApiServer:
    """A running server.

    Attributes:
        objects: Path -> what is there.
        forbidden: Regular expressions of `METHOD /path` that are answered by 403.
        denied: What reviews of rights say no to, as `verb resource` or `ACCOUNT verb resource`.
        pods: Kind of probe -> the status that its pod has; `None`: it ends well.
        refusals: Kind of probe -> why its pod is refused.
        user: Who asks; empty for a token that has expired.
        latency_s: How long an answer takes.
        ahead_s: How far its clock is ahead.
        url: Where it listens.
        requests: What was asked so far, as `METHOD /path`.
        sent: The pods that were made, by name.
    """

    objects: dict[str, Json] = field(default_factory=everything)
    forbidden: list[str] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    pods: dict[str, Json | None] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    user: str = "someone"
    latency_s: float = 0.0
    ahead_s: float = 0.0
    url: str = ""
    requests: list[str] = field(default_factory=list)
    sent: dict[str, Json] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Json, headers: Json) -> tuple[int, Json]:
        asked = f"{method} {path}"
        self.requests.append(asked)
        if not self.user:
            return 401, _status("Unauthorized")
        if any(re.search(each, asked) for each in self.forbidden):
            return 403, _status(f'{path} is forbidden: User "someone" cannot get it')
        if path.endswith("/selfsubjectreviews"):
            return 201, {**body, "status": {"userInfo": {"username": self.user}}}
        if path.endswith("accessreviews"):
            return 201, {**body, "status": {"allowed": self._allows(body["spec"], headers)}}
        if method == "POST":
            return self._make(body)
        if method == "DELETE":
            return 200, self.sent.pop(path.rpartition("/")[2])
        if path.startswith(f"{OF_RUNS}/pods/"):
            return 200, self._pod(path.rpartition("/")[2])
        if path in self.objects:
            return 200, self.objects[path]
        return 404, _status(f"{path.rpartition('/')[2]} not found")

    def _allows(self, spec: Json, headers: Json) -> bool:
        about = spec["resourceAttributes"]
        kind = f"{about['resource']}.{about['group']}".rstrip(".")
        kind += f"/{about['subresource']}" if about["subresource"] else ""
        who = spec.get("user") or headers.get("Impersonate-User", "")
        right = f"{about['verb']} {kind}"
        return (f"{who.rpartition(':')[2]} {right}" if who else right) not in self.denied

    def _make(self, pod: Json) -> tuple[int, Json]:
        name = pod["metadata"]["name"]
        if refusal := self.refusals.get(_kind(name)):
            return 403, _status(f'pods "{name}" is forbidden: {refusal}')
        self.sent[name] = pod
        return 201, pod

    def _pod(self, name: str) -> Json:
        answer = {"time": time.time() + self.ahead_s, **json.loads(ENDED_WELL)}
        status = self.pods.get(_kind(name)) or terminated("Succeeded", json.dumps(answer))
        return {**self.sent[name], "status": status}


def _kind(pod: str) -> str:
    return pod.split("-")[2]


def _status(message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}


@contextmanager
def serving(server: ApiServer):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            time.sleep(server.latency_s)
            path = unquote(urlsplit(self.path).path)
            status, found = server.answer(self.command, path, body, self.headers)
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            with suppress(BrokenPipeError):  # some callers do not wait
                self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + server.ahead_s)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        server.url = f"http://127.0.0.1:{listening.server_port}"
        yield server
        listening.shutdown()
