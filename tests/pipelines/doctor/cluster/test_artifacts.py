import pytest
import yaml

from pipelines.doctor.cluster.artifacts import check_artifacts
from pipelines.doctor.cluster.kubeflow import Installation
from tests.pipelines.doctor.cluster.api_server import OF_RUNS, encoded, named

LAUNCHER = f"{OF_RUNS}/configmaps/kfp-launcher"
USUAL = f"{OF_RUNS}/secrets/mlpipeline-minio-artifact"
REFERENCE = {"secretName": "s3-key", "accessKeyKey": "id", "secretKeyKey": "key"}


@pytest.fixture
def checked(cluster, server, target):
    def check(**data):
        if data:
            server.objects[LAUNCHER] = named("kfp-launcher", data=data)
        return check_artifacts(Installation(cluster, "kubeflow"), target)

    return check


def providers(**each):
    return yaml.safe_dump(each)


def test_kfps_own_bucket_by_default(checked):
    check = checked()
    assert check.status == "ok"
    assert check.found.startswith("minio://mlpipeline/v2/artifacts; the key is in the Secret mlpip")


@pytest.mark.parametrize("keys", [None, ["accesskey"]])
def test_its_key_that_is_not_in_the_runs_namespace(checked, server, keys):
    if keys is None:
        del server.objects[USUAL]
    else:
        server.objects[USUAL] = named("x", data=encoded(**dict.fromkeys(keys, "x")))
    check = checked()
    assert check.status == "error"
    assert "mlpipeline-minio-artifact in brainseg" in check.found
    assert "copy it from the namespace kubeflow" in check.advice


def test_a_bucket_with_the_pods_own_role(checked, server):
    del server.objects[USUAL]
    check = checked(defaultPipelineRoot="s3://mri/kfp")
    assert (check.status, check.found) == ("ok", "s3://mri/kfp; pods use their own role")


@pytest.mark.parametrize("where", ["default", "Overrides"])
def test_a_key_of_ones_own(checked, server, where):
    of = {"credentials": {"fromEnv": False, "secretRef": REFERENCE}}
    s3 = {where: of if where == "default" else [of]}
    data = {"defaultPipelineRoot": "s3://mri/kfp", "providers": providers(s3=s3)}
    missing = checked(**data)
    assert missing.status == "error"
    assert "there is no Secret s3-key in brainseg" in missing.found
    server.objects[f"{OF_RUNS}/secrets/s3-key"] = named("s3-key", data=encoded(id="x"))
    assert "lacks key" in checked(**data).found
    server.objects[f"{OF_RUNS}/secrets/s3-key"]["data"] |= encoded(key="x")
    assert checked(**data).found == "s3://mri/kfp; the key is in the Secret s3-key"
