"""What every team that applies the manifests relies on, read from what kustomize makes of them."""

import re

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from tests.manifests.conftest import MANIFESTS, Objects, build
from tests.manifests.schema import complaints

GUIDE = (MANIFESTS.parent / "docs/get-started/cluster.md").read_text()
KFP_S3 = {"app": "seaweedfs"}
PROFILES = sorted((MANIFESTS.parent / "pipelines" / "profiles").glob("*.yaml"))


def test_every_field_is_one_of_kubernetes(built):
    assert [complaint for each in built for complaint in complaints(each)] == []


def test_a_misspelt_field_and_a_wrong_type_are_complained_of(base):
    deployment = base.named("Deployment", "mlflow")
    deployment = deployment | {"spec": deployment["spec"] | {"replica": 1, "paused": "no"}}
    assert complaints(deployment) == [
        "Deployment.spec: unknown field replica",
        "Deployment.spec.paused: 'no' is no bool",
    ]


def test_pods_are_what_a_restricted_namespace_takes(built):
    for name, pod in built.pods().items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {"emptyDir", "configMap", "secret", "projected"}, name


def test_containers_have_no_rights_and_no_writable_root(built):
    for name, container in built.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_containers_name_what_they_need_and_what_they_may_use(built):
    for name, container in built.containers():
        for resource in ("cpu", "memory"):
            request, limit = (
                parse_quantity(container["resources"][kind][resource])
                for kind in ("requests", "limits")
            )
            assert 0 < request <= limit, name


def test_scratch_folders_are_bounded(built):
    for name, pod in built.pods().items():
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], f"{name}: {volume['name']}"


def test_images_have_a_fixed_tag_and_no_registry(built):
    for name, container in built.containers():
        assert re.fullmatch(r"[^:]+:[\w.-]+", container["image"]), name
        repository, _, tag = container["image"].partition(":")
        assert tag != "latest", name
        host, slash, _ = repository.partition("/")
        assert not slash or host == "localhost", f"{name}: the overlays of users name a registry"


def test_one_resource_a_file_in_the_base():
    for file in (MANIFESTS / "base").rglob("*.yaml"):
        assert len(list(yaml.safe_load_all(file.read_text()))) == 1, file


def test_a_submission_is_not_repeated_as_it_may_have_made_a_run():
    (cronjob,) = Objects(build("schedules")).of("CronJob")
    job = cronjob["spec"]["jobTemplate"]["spec"]
    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")


@pytest.mark.parametrize("name", ["kind", "aws", "gpu"])
def test_no_secret_is_in_the_manifests(base, overlay, name):
    assert base.of("Secret") == overlay(name).of("Secret") == []


def test_a_quota_comes_with_defaults_for_containers_that_name_nothing(built):
    if built.of("ResourceQuota"):
        (limits,) = [each for limit in built.of("LimitRange") for each in limit["spec"]["limits"]]
        assert limits["type"] == "Container"
        assert limits["default"].keys() == limits["defaultRequest"].keys() == {"cpu", "memory"}


def test_the_quota_holds_the_services_and_a_backup_beside_a_run(overlay):
    for name in ("test", "aws", "gpu"):
        objects = overlay(name)
        hard = objects.named("ResourceQuota", "brainseg")["spec"]["hard"]
        for kind in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                used = sum(
                    parse_quantity(container["resources"][kind][resource])
                    for _, container in objects.containers()
                )
                assert used < parse_quantity(hard[f"{kind}.{resource}"]) / 2, (name, resource)


def test_accounts_of_pods_exist_and_only_runs_and_submissions_get_a_token(built, base):
    accounts = {
        each["metadata"]["name"]: each.get("automountServiceAccountToken")
        for each in [*base.of("ServiceAccount"), *built.of("ServiceAccount")]
    }
    for name, pod in built.pods().items():
        assert pod["spec"]["serviceAccountName"] in accounts, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
    assert {name for name, token in accounts.items() if token} == {"brainseg-run"}


def test_role_bindings_name_a_role_and_an_account_that_exist(built):
    for binding in built.of("RoleBinding"):
        assert binding["roleRef"]["name"] in built.names("Role")
        for subject in binding["subjects"]:
            assert subject["name"] in built.names("ServiceAccount")


def test_runs_may_write_only_what_they_are_known_to_write(base):
    assert base.of("ClusterRole", "ClusterRoleBinding") == []
    (role,) = base.of("Role")
    rules = {tuple(rule["resources"]): rule for rule in role["rules"]}
    writes = {
        resources: set(rule["verbs"]) - {"get", "list", "watch"}
        for resources, rule in rules.items()
        if set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writes == {
        ("workflowtaskresults",): {"create", "patch"},
        ("jobs",): {"create", "patch", "delete"},
        ("services",): {"create"},
        ("trainjobs", "trainingruntimes"): {"create", "patch", "delete"},
        ("experiments", "registeredmodels"): {"create", "update"},
    }
    assert rules[("secrets",)]["verbs"] == rules[("configmaps",)]["verbs"] == ["get"]
    assert rules[("secrets",)]["resourceNames"] == ["mlpipeline-minio-artifact"]


def test_no_right_is_a_wildcard(built):
    for role in built.of("Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_what_pods_read_is_there_or_told_how_to_make(built, base):
    for name, container in built.containers():
        for kind, source, key, optional in references(container):
            assert_exists([*base, *built], kind, source, key, optional, name)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_what_pod_profiles_read_is_there_or_told_how_to_make(profile, base):
    for section in yaml.safe_load(profile.read_text()).values():
        for settings, kind in (("config", "ConfigMap"), ("secrets", "Secret")):
            for entry in section.get(settings, []) if isinstance(section, dict) else []:
                for key in entry["env"].values():
                    optional = entry.get("optional", False)
                    assert_exists(base, kind, entry["name"], key, optional, profile.name)


def test_services_lead_to_a_port_of_a_pod(built):
    for service in built.of("Service"):
        (pod,) = matching(built, {"matchLabels": service["spec"]["selector"]})
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in port_names(pod)


def test_network_policies_select_pods_that_there_are_and_ports_that_they_have(built):
    for policy in built.of("NetworkPolicy"):
        name = policy["metadata"]["name"]
        for selector, ports in selections(policy):
            others = selector_is_of_runs(selector) or selector == {"matchLabels": KFP_S3}
            assert matching(built, selector) or others, name
            for port in ports:
                if isinstance(port, str):
                    assert any(port in port_names(pod) for pod in matching(built, selector)), name


def test_nothing_is_open_that_no_policy_names(base):
    spec = base.named("NetworkPolicy", "default-deny")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    spec = base.named("NetworkPolicy", "postgres")["spec"]
    (rule,) = spec["ingress"]
    names = {
        pod["metadata"]["labels"]["app.kubernetes.io/name"]
        for source in rule["from"]
        for pod in matching(base, source["podSelector"])
    }
    assert names == {"mlflow", "brainseg-backup", "brainseg-restore"}


def test_no_policy_leads_to_the_credentials_of_the_node(built):
    for policy in built.of("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for to in rule["to"]:
                if to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    assert to["ipBlock"]["except"] == ["169.254.0.0/16"]


@pytest.mark.parametrize("name", ["test", "kind", "aws", "gpu"])
def test_mlflow_allows_the_names_of_its_service(overlay, name):
    """Steps use the short one; KFP's API server, in another namespace, a longer one."""
    built = overlay(name)
    config_maps = {
        each["metadata"]["name"].partition("-settings")[0]: each["data"]
        for each in built.of("ConfigMap")
        if "-settings" in each["metadata"]["name"]
    }
    namespace = built.named("Service", "mlflow")["metadata"]["namespace"]
    full = f"mlflow.{namespace}.svc.cluster.local"
    addresses = {
        config_maps["brainseg"]["MLFLOW_TRACKING_URI"].removeprefix("http://"),
        *(
            f"{full.removesuffix(ending)}:5000"
            for ending in ("", ".cluster.local", ".svc.cluster.local")
        ),
    }
    assert addresses <= set(config_maps["mlflow"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","))


def test_beside_kubeflows_own_pods_nothing_is_about_them(overlay):
    """Kubeflow for one user runs pods in its own namespace: a quota there would be its own too."""
    kind = overlay("kind")
    assert {each["metadata"]["namespace"] for each in kind} == {"kubeflow"}
    assert kind.of("Namespace", "ResourceQuota", "LimitRange") == []
    for policy in kind.of("NetworkPolicy"):
        assert matching(kind, policy["spec"]["podSelector"]), policy["metadata"]["name"]
        assert policy["spec"]["podSelector"], policy["metadata"]["name"]


def test_kubeflows_own_s3_is_asked_where_it_is(overlay):
    # seaweedfs-service.yaml, seaweedfs-deployment.yaml at 2.17.0
    kind = overlay("kind")
    settings = kind.named("ConfigMap", "brainseg-settings")["data"]
    assert settings["BRAINSEG_AWS_ENDPOINT_URL_S3"] == "http://seaweedfs:8333"
    for name in ("mlflow", "backup"):
        ways = kind.named("NetworkPolicy", name)["spec"]["egress"]
        selector, port = {"podSelector": {"matchLabels": KFP_S3}}, {"protocol": "TCP", "port": 8333}
        assert {"to": [selector], "ports": [port]} in ways


def test_a_namespace_keeps_the_label_by_which_kubeflows_s3_lets_it_in(base):
    # the profile controller's part-of; seaweedfs-networkpolicy.yaml at 2.17.0
    (namespace,) = base.of("Namespace")
    assert "app.kubernetes.io/part-of" not in namespace["metadata"]["labels"]


def test_the_namespace_enforces_restricted_in_a_pinned_version(built):
    for namespace in built.of("Namespace"):
        labels = namespace["metadata"]["labels"]
        for mode in ("enforce", "audit", "warn"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
            assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "v1.35"


def references(container):
    """ConfigMaps and Secrets that a container's variables come from: kind, name, key, optional."""
    for source in container.get("envFrom", []):
        yield "ConfigMap", source["configMapRef"]["name"], None, False
    for variable in container.get("env", []):
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if reference := variable.get("valueFrom", {}).get(field):
                optional = reference.get("optional", False)
                yield kind, reference["name"], reference["key"], optional


def assert_exists(objects, kind, name, key, optional, user):
    """What is optional or secret is made by people: the guide must say how."""
    if kind == "ConfigMap" and not optional:
        (data,) = {
            each["metadata"]["name"]: each["data"]
            for each in objects
            if (each["kind"], each["metadata"]["name"]) == (kind, name)
        }.values()
        assert key is None or key in data, f"{user}: {name} has no {key}"
    else:
        assert name in GUIDE, f"{user}: {name}"
        assert key in GUIDE, f"{user}: {name} {key}"


def selections(policy):
    """The pods that a policy is about, or leads to, and their ports, as (selector, ports)."""
    spec = policy["spec"]
    ingress = [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
    yield spec["podSelector"], ingress
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            ports = [port["port"] for port in rule.get("ports", [])]
            for peer in rule[peers]:
                if "podSelector" in peer:
                    yield peer["podSelector"], ports if direction == "egress" else []


def selector_is_of_runs(selector):
    return [each["operator"] for each in selector.get("matchExpressions", [])] == ["NotIn"]


def matching(objects, selector):
    """The pod templates that a selector selects."""
    wanted = [({key}, {value}) for key, value in selector.get("matchLabels", {}).items()]
    forbidden = []
    for each in selector.get("matchExpressions", []):
        pair = ({each["key"]}, set(each["values"]))
        (wanted if each["operator"] == "In" else forbidden).append(pair)

    def has(pod, keys, values):
        return any(pod["metadata"]["labels"].get(key) in values for key in keys)

    return [
        pod
        for pod in objects.pods().values()
        if all(has(pod, *pair) for pair in wanted) and not any(has(pod, *p) for p in forbidden)
    ]


def port_names(pod):
    return {
        port["name"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }
