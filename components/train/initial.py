"""Initial weights of a training run: found once, and the same in every attempt."""

import logging
from collections.abc import Iterator, Mapping

from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from components.shared.config import Record
from components.shared.dataset.split import fetch_split
from components.shared.errors import UserError
from components.shared.model.settings import Network
from components.shared.storage.outcome import run_folder
from components.shared.storage.store import Store
from components.shared.tracking.champion import (
    find_champion,
    is_origin_known,
    resolve_model,
    version_of,
)
from components.shared.tracking.identity import Training
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect
from components.shared.weights.stored import StoredWeights, require_weights
from components.train.recipe import Recipe

logger = logging.getLogger(__name__)

ENCODER, WHOLE = "encoder_weights", "initial_weights"  # settings of a network


class InitialWeights(Record):
    """Weights of a recipe's networks.

    Attributes:
        files: Weights by setting, e.g. `network.encoder_weights`.
    """

    files: Mapping[str, StoredWeights] = {}

    def of(self, section: str) -> tuple[str, StoredWeights] | None:
        """Returns the setting and the weights of the network in a section of the recipe."""
        found = ((name, self.files.get(f"{section}.{name}")) for name in (WHOLE, ENCODER))
        return next(((name, weights) for name, weights in found if weights), None)

    def is_warm(self, section: str) -> bool:
        """Returns whether the network in a section starts from an earlier model."""
        return f"{section}.{WHOLE}" in self.files

    def params(self) -> dict[str, str]:
        """Returns sources and digests as parameters of an MLflow run."""
        return {
            f"train.{name}_{what}": value
            for name, weights in self.files.items()
            for what, value in (("source", weights.source), ("sha256", weights.sha256))
        }


def identify(
    recipe: Recipe,
    store: Store,
    model_name: str,
    *,
    pipeline_run: str,
    label: str,
    dataset_id: str,
    split_id: str,
) -> tuple[Training, InitialWeights]:
    """Returns the identity of a training run, and the weights that it starts from.

    The first attempt finds the weights, and leaves them with the pipeline run. Later attempts and
    the pods of a group start from the same, whoever is champion by then.

    Raises:
        UserError: If weights cannot be fetched, or were trained on test patients.
    """
    training = Training(
        pipeline_run=pipeline_run,
        label=label,
        dataset_id=dataset_id,
        split_id=split_id,
        recipe=recipe.model_dump(mode="json"),
    )
    if not any(map(_names_weights, recipe.networks.values())):
        return training, InitialWeights()
    key = f"{run_folder(pipeline_run)}weights/{training.digest}.json"
    weights = _read(store, key)
    if weights is None:
        weights = find_initial(recipe.networks, store, model_name, split_id)
        store.write(key, weights.model_dump_json().encode())
    digests = {name: one.sha256 for name, one in weights.files.items()}
    return training.model_copy(update={"weights": digests}), weights


@explaining()
def find_initial(
    networks: Mapping[str, Network], store: Store, model_name: str, split_id: str = ""
) -> InitialWeights:
    """Finds the weights that networks start from, and fetches those that the store lacks.

    Args:
        networks: Networks by section of the recipe.
        store: Store of the weights.
        model_name: Registered model whose champion `champion` is.
        split_id: Split whose test patients no weights may have been trained on; empty for none.

    Raises:
        UserError: If weights cannot be fetched, or were trained on test patients.
    """
    found: dict[str, StoredWeights] = {}
    for section, network in networks.items():
        name, source = WHOLE, _whole_source(network, model_name, f"train.{section}")
        if source is None:
            name, source = ENCODER, network.encoder_source
        if source is not None:
            source = resolve_model(source, model_name)
            _require_unseen(source, store, split_id, f"train.{section}.{name}")
            found[f"{section}.{name}"] = require_weights(store, source)
    return InitialWeights(files=found)


def _names_weights(network: Network) -> bool:
    return network.initial_weights is not None or network.encoder_weights != "none"


def _whole_source(network: Network, model_name: str, place: str) -> str | None:
    wanted = network.initial_weights
    if wanted != "champion":
        return wanted
    champion = find_champion(connect(), model_name)
    if champion is None:
        logger.warning(
            "%s.initial_weights=champion: model %s has no champion; starting without it",
            place,
            model_name,
        )
        return None
    return f"models:/{champion.name}/{champion.version}"


def _require_unseen(source: str, store: Store, split_id: str, place: str) -> None:
    """Refuses a registered version that has learned from test patients of a split."""
    version = version_of(source)
    if not split_id or version is None or not is_origin_known(version, store):
        return
    test = set(fetch_split(store, split_id).patients("test"))
    seen = sorted(test.intersection(_learned(version, store)))
    if seen:
        raise UserError(
            f"{place}: {source} was trained on {len(seen)} of the {len(test)} test patients (e.g. "
            f"{seen[0]}), so their scores would be too high; keep its split, as retraining does, "
            "or start without it"
        )


def _learned(version: ModelVersion, store: Store) -> Iterator[str]:
    split = fetch_split(store, version.tags["split_id"])
    yield from split.patients("train")
    yield from split.patients("validation")


def _read(store: Store, key: str) -> InitialWeights | None:
    try:
        return InitialWeights.model_validate_json(store.read(key))
    except KeyError:
        return None
    except ValidationError as error:
        raise UserError(f"{store.uri}/{key} was not written by this version: {error}") from error
