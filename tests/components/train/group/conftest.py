"""A task as the step gives it to its pods, with the data in the store."""

import copy

import pytest
from kubernetes.client import ApiClient, Configuration

from components.shared.cluster import Cluster
from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.split import split_key
from components.shared.tracking.identity import Training
from components.train.group.cluster import GroupCluster
from components.train.group.result import PROFILE, group_folder
from components.train.group.settings import Task
from tests.components.train.conftest import *  # noqa: F403  # the small data set and recipe
from tests.components.train.group.api_server import ApiServer
from tests.components.train.group.pods import OWN_POD


@pytest.fixture
def make_task(dataset, make_recipe):
    def make(**sections):
        training = Training(
            pipeline_run="run-1",
            label="fold-1",
            dataset_id=dataset.manifest.dataset_id,
            split_id=dataset.split.split_id,
            recipe=make_recipe(**sections).model_dump(mode="json"),
        )
        store = dataset.store
        store.write(manifest_key(dataset.manifest.dataset_id), dataset.manifest.to_json())
        store.write(split_key(dataset.split.split_id), dataset.split.to_json())
        store.write(f"{group_folder(training)}/{PROFILE}", b"<html></html>")
        return Task(store=store.uri, training=training)

    return make


@pytest.fixture
def api():
    with ApiServer().running() as server:
        server.objects["pods"]["train-1"] = copy.deepcopy(OWN_POD)
        yield server


@pytest.fixture
def cluster(api):
    connection = Cluster(ApiClient(Configuration(host=api.url)), "brainseg")
    return GroupCluster(connection, "train-1")
