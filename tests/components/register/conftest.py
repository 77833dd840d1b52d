"""Candidates with real models, real volumes and a real registry."""

import uuid
from dataclasses import dataclass, replace

import pytest

from components.register.registration import Candidate, register_model
from components.register.settings import RegisterSettings
from components.shared.dataset.manifest import manifest_key
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split, split_key
from components.shared.dataset.volumes import fetch_volume
from components.shared.model.segmenter import load_segmenter
from components.shared.scoring.metrics import aggregate_targets
from components.shared.scoring.predicted import by_target
from components.shared.scoring.scores import score_volume
from components.shared.storage.store import open_store
from components.shared.tracking.runs import log_metrics
from components.shared.tracking.server import connect
from tests.components.conftest import new_run


@dataclass
class World:
    """A store with a data set of twelve patients, a split and a registered model's name."""

    store: object
    cache: object
    manifest: object
    split: object
    settings: RegisterSettings
    model_folder: object
    evaluated: dict

    @property
    def dataset(self):
        return SplitDataset(self.store, self.cache, self.manifest, self.split)

    def candidate(self, level, threshold=0.5):
        """Trains (so to say) and evaluates a model in a new run."""
        folder, run_id = self.model_folder(level), new_run()
        key = (level, threshold, self.manifest.dataset_id, self.split.split_id)
        if key not in self.evaluated:
            self.evaluated[key] = self.evaluate(folder, threshold)
        targets, metrics = self.evaluated[key]
        log_metrics(connect(), run_id, metrics)
        return Candidate(
            run_id=run_id,
            folder=folder,
            targets=targets,
            metrics=metrics,
        )

    def evaluate(self, folder, threshold):
        segmenter, scores = load_segmenter(folder), []
        for entry in self.dataset.entries("test"):
            stored = fetch_volume(self.store, entry.digest, self.cache)
            volume = replace(stored, targets=self.manifest.targets)
            found = enumerate(segmenter(volume.image))
            scores.append([score_volume(entry, volume, p, p >= threshold, i) for i, p in found])
        targets = by_target(self.manifest.targets, scores)
        return targets, {**aggregate_targets(targets), "threshold": threshold}

    def register(self, candidate, **settings):
        rules = self.settings.model_copy(update=settings)
        files = {name: self.cache.parent / name for name in ("decision", "report")}
        return register_model(candidate, self.dataset, rules, **files)

    def champion(self, level):
        """Makes version 1 of this name what the registration of such a model leaves.

        The registration itself, which is slow, is done once for all tests.
        """
        client, name = connect(), self.settings.model_name
        key = (client.tracking_uri, level, self.manifest.dataset_id, self.split.split_id)
        if key not in self.evaluated:
            found = self.register(self.candidate(level), model_name=f"registered-{name}")
            assert found.promoted
            self.evaluated[key] = client.get_model_version(found.model_name, found.model_version)
        registered = self.evaluated[key]
        client.create_registered_model(name)
        client.create_model_version(
            name,
            registered.source,
            registered.run_id,
            registered.tags,
            description=registered.description,
            model_id=registered.model_id,
        )
        client.set_registered_model_alias(name, "champion", "1")

    def alias(self, name="champion"):
        aliases = connect().get_registered_model(self.settings.model_name).aliases
        found = aliases.get(name)
        return None if found is None else str(found)

    def publish(self, split, manifest=None):
        """Makes another split the one in use, as a later pipeline run does."""
        self.manifest, self.split = manifest or self.manifest, split
        self.store.write(manifest_key(self.manifest.dataset_id), self.manifest.to_json())
        self.store.write(split_key(split.split_id), split.to_json())


@pytest.fixture(scope="session")
def evaluated():
    """Scores by model, data set and split, so that each is computed once."""
    return {}


@pytest.fixture
def make_world(tmp_path, threshold_model, make_blob, publish, evaluated):
    def make(seed=0, make_volume=make_blob, **form):
        store = open_store(str(tmp_path / f"store{seed}"))
        manifest = publish(
            store, [make_volume(100 * seed + number) for number in range(12)], **form
        )
        world = World(
            store,
            tmp_path / "cache",
            manifest,
            None,
            RegisterSettings(model_name=uuid.uuid4().hex, device="cpu"),
            threshold_model,
            evaluated,
        )
        entries = manifest.volumes
        parts = {"train": entries[:3], "validation": entries[3:4], "test": entries[4:]}
        world.publish(make_split(parts))
        return world

    return make


@pytest.fixture
def world(make_world, local_mlflow):
    return make_world()


@pytest.fixture
def any_world(make_world, any_mlflow):
    return make_world()
