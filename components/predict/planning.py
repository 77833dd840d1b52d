"""The plan of an inference: the cases of a source that a model version has not predicted."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

from components.predict.cases import by_name, fingerprint, refusals
from components.predict.model import version_origin
from components.predict.settings import PredictSettings
from components.predict.stored import StoredPredictions
from components.shared.config import Record
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.scans import Listing
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import Source
from components.shared.storage.store import Store
from components.shared.tracking.champion import resolve_model

logger = logging.getLogger(__name__)


class InferencePlan(Record):
    """The cases of a source that a model version has not predicted.

    Attributes:
        model: URI of the version, which an alias moved later does not change.
        source: URI of the source.
        cases: Names of the new cases.
        refused: Reasons of the cases that cannot be read, by name.
        known: Number of other cases.
    """

    model: str
    source: str
    cases: tuple[str, ...]
    refused: dict[str, str]
    known: int

    def shards(self, most_volumes: int) -> list[dict[str, int]]:
        """`index` and `count` of each shard; at least one, which may be empty."""
        count = max(1, math.ceil(len(self.cases) / most_volumes))
        return [{"index": index, "count": count} for index in range(count)]


def plan_predictions(
    model: str, source_uri: str, store: Store, settings: PredictSettings
) -> InferencePlan:
    """Lists a source, and leaves out what the model version has predicted. No image is read.

    Args:
        model: `champion` or a URI of a registered version.
        source_uri: URI of the volumes, with or without labels.
        store: Store of the predictions.
        settings: Settings of the step.

    Raises:
        UserError: If the model is no registered version, the source cannot be used or has no case,
            or the store has predictions of another model with this name and number.
    """
    uri = resolve_model(model, settings.model_name)
    predictions = StoredPredictions(store, uri)
    predictions.claim(version_origin(uri))
    with open_cases(source_uri, settings) as (source, layout, listing):
        scans, refused = by_name(listing), refusals(listing)
        if not scans:
            raise layout.nothing_accepted(source_uri, listing.quarantined)
        seen = predictions.seen()
        new = [
            name for name, scan in scans.items() if fingerprint(source, layout, scan) not in seen
        ]
    known = len(scans) - len(new)
    logger.info("%d new cases, %d known, %d refused", len(new), known, len(refused))
    return InferencePlan(
        model=uri, source=source_uri, cases=tuple(new), refused=refused, known=known
    )


@contextmanager
def open_cases(uri: str, settings: PredictSettings) -> Iterator[tuple[Source, Layout, Listing]]:
    """Opens a source and its layout without labels, and lists its cases."""
    with open_source(uri, settings.max_archive_gib) as source:
        layout = open_layout(settings.layout, source, with_labels=False)
        yield source, layout, layout.list_scans(source)
