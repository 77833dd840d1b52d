"""The served model, which follows an alias of the registry."""

import logging
from dataclasses import dataclass

from components.predict.model import scored_threshold
from components.shared.errors import UserError
from components.shared.model.segmenter import StoredSegmenter, load_segmenter
from components.shared.tracking.champion import resolve_model
from components.shared.tracking.refusals import explaining_files
from pipelines.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

_FOLDER_VERSION = "0"  # a model folder has no version


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        uri: URI with the version.
        name: Name in addresses.
        version: Version of the registered model; `0` for a model folder.
        threshold: Probability from which a pixel is tumour.
    """

    uri: str
    name: str
    version: str
    segmenter: StoredSegmenter
    threshold: float


class ServedModel:
    """The present version of a model.

    A request uses the version that `current` has at its start. A new one is loaded next to it, so
    two versions are in memory until the last request of the old one has ended.
    """

    def __init__(self, model: str, settings: ServeSettings) -> None:
        self._model, self._settings = model, settings
        self.current = self._load(self._resolve())
        self.swaps = 0

    def refresh(self) -> None:
        """Loads the version of the alias if it has changed; keeps the present one on failure."""
        try:
            uri = self._resolve()
            if uri == self.current.uri:
                return
            loaded = self._load(uri)
        except UserError as error:
            logger.warning("still serving %s: %s", self.current.uri, error)
            return
        logger.info("serving %s after %s", loaded.uri, self.current.uri)
        self.current = loaded
        self.swaps += 1

    def _resolve(self) -> str:
        return resolve_model(self._model, self._settings.model_name)

    def _load(self, uri: str) -> LoadedModel:
        with explaining_files():
            segmenter = load_segmenter(uri, self._settings.device)
        name, version = self._settings.model_name, _FOLDER_VERSION
        if uri.startswith("models:/"):
            named, _, number = uri.removeprefix("models:/").partition("/")
            name, version = (named, number) if number else (name, named)
        threshold = scored_threshold(uri, segmenter.threshold)
        return LoadedModel(uri, name, version, segmenter, threshold)
