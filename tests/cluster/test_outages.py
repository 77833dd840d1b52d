"""A service that is away for a minute in the midst of a run."""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.shared.storage.store import open_store
from pipelines.placement.compilation import compile_all
from pipelines.placement.images import Images
from pipelines.placement.profiles import load_profile
from tests.cluster.conftest import (
    BUCKET,
    TREE,
    arguments,
    inner_keys,
    is_there,
    pod,
    wait_within,
)

pytestmark = pytest.mark.cluster

AWAY_S = 60
S3_WAY = """
import asyncio

async def pass_on(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def connect(reader, writer):
    inward, outward = await asyncio.open_connection("s3.test", 7070)
    await asyncio.gather(pass_on(reader, outward), pass_on(inward, writer))

async def serve():
    async with await asyncio.start_server(connect, "", 7070) as server:
        await server.serve_forever()

asyncio.run(serve())
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """As the overlay's, but a step is tried for longer than a minute, as by default."""
    folder = tmp_path_factory.mktemp("patient")
    (folder / "profile.yaml").write_text("extends: test\nall: {retries: 4, backoff_s: 15}\n")
    profile = load_profile(str(folder / "profile.yaml"))
    compile_all(folder, profile=profile, images=Images(registry="localhost"))
    return folder / "training.yaml"


@pytest.fixture
def s3_way(deployed):
    """Steps reach S3 by a pod that can be taken away."""
    described = pod("s3-way")
    described["metadata"]["labels"] = {"app": "s3-way"}
    described["spec"]["containers"][0]["command"] = ["python", "-c", S3_WAY]
    port = {"port": 7070}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s3-way"},
        "spec": {"selector": {"app": "s3-way"}, "ports": [port]},
    }

    def bring():
        deployed("apply", "-f", "-", text=json.dumps(described))
        deployed("wait", "pod/s3-way", "--for=condition=Ready", "--timeout=120s")

    def take():
        deployed("delete", "pod", "s3-way", "--grace-period=0", "--force")

    deployed("apply", "-f", "-", text=json.dumps(service))
    bring()
    address = json.dumps({"data": {"BRAINSEG_AWS_ENDPOINT_URL_S3": "http://s3-way:7070"}})
    deployed("patch", "configmap", "brainseg-settings", "--patch", address)
    yield take, bring
    deployed.apply_overlay()
    deployed("delete", "service/s3-way", "pod/s3-way", "--ignore-not-found", "--grace-period=1")


@pytest.fixture
def mlflow(deployed):
    def scale(replicas):
        deployed("scale", "deployment/mlflow", f"--replicas={replicas}")

    def bring():
        scale(1)
        deployed.wait_for_rollouts()

    yield lambda: scale(0), bring
    bring()


@pytest.fixture(scope="module")
def run(backend, training):
    """Runs the pipeline with a service taken away for a while, once `when` has returned."""

    def run(when=None, take=None, bring=None):
        run_id = uuid.uuid4().hex[:8]
        store = f"{BUCKET}/outage-{run_id}"

        def outage():
            when(run_id, store)
            take()
            time.sleep(AWAY_S)
            bring()

        with ThreadPoolExecutor(1) as pool:
            away = pool.submit(outage) if when else None
            done = backend.run(training, arguments(store), run_id)
            if away:
                away.result()
        return run_id, store, done

    return run


@pytest.fixture(scope="module")
def undisturbed(run):
    return run()


@pytest.mark.parametrize("service", ["s3_way", "mlflow"])
@pytest.mark.parametrize("name", ["train", "register"])
def test_a_minute_without_a_service_changes_nothing_but_the_time(
    service, name, run, undisturbed, deployed, step, request
):
    def when(run_id, store):
        stored = f"{store}/checkpoints/"
        wait_within(deployed, run_id, name, lambda: name != "train" or is_there(stored))

    run_id, store, done = run(when, *request.getfixturevalue(service))
    first_id, other, before = undisturbed
    figures = [each["evaluate"]["artifacts"]["metrics"]["metadata"] for each in (before, done)]
    assert figures[0] == figures[1]
    assert sorted(inner_keys(store)) == sorted(inner_keys(other))
    trees = [json.loads(step(TREE, each)) for each in (first_id, run_id)]
    assert trees[0] == trees[1]
    assert list(open_store(store).keys("checkpoints/")) == []
