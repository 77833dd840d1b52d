"""Ingest of a large source by several pods: each reads a part, the last step publishes them."""

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

from components.ingest.ingestion import IngestResult, open_listing, publish, read_volumes
from components.ingest.settings import IngestSettings
from components.ingest.workers import Accepted, Outcome
from components.shared.config import Record
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.manifest import VolumeEntry
from components.shared.errors import UserError
from components.shared.storage.store import Store

logger = logging.getLogger(__name__)


class _Read(Record):
    """Result of one volume in a shard: an entry, or the reason of its quarantine."""

    volume: str
    entry: VolumeEntry | None = None
    bytes_written: int = 0
    reason: str = ""


def plan_shards(source_uri: str, settings: IngestSettings) -> list[dict[str, int]]:
    """Divides the volumes of a source among pods.

    Returns:
        `index` and `count` of each shard, for `ingest_shard`.

    Raises:
        UserError: If the source cannot be used.
    """
    with open_listing(source_uri, settings) as opened:
        volumes = len(opened.listing.scans)
    count = max(1, math.ceil(volumes / settings.shard_volumes))
    logger.info("%d volumes in %d shards", volumes, count)
    return [{"index": index, "count": count} for index in range(count)]


def ingest_shard(
    source_uri: str, store: Store, settings: IngestSettings, *, index: int, count: int, part: Path
) -> None:
    """Checks and stores every `count`-th volume of a source.

    Args:
        source_uri: URI of the source.
        store: Store that receives the volumes.
        settings: Settings of all shards.
        index: Number of the first volume, below `count`.
        count: Number of shards.
        part: File for the result, which `merge_shards` reads.

    Raises:
        UserError: If the source or the store cannot be used.
    """
    with open_listing(source_uri, settings) as opened:
        outcomes = read_volumes(opened, opened.unique_scans[index::count], store, settings)
    rows = [_row(outcome).model_dump(mode="json", exclude_defaults=True) for outcome in outcomes]
    part.write_text(json.dumps(rows))


def merge_shards(
    source_uri: str, store: Store, settings: IngestSettings, parts: Iterable[Path]
) -> IngestResult:
    """Publishes the volumes of all shards; the version is that of one ingest of the source.

    Raises:
        UserError: As `components.ingest.ingestion.ingest_source`, or if the source has changed
            since a shard has read it.
    """
    rows = (_Read(**row) for part in parts for row in json.loads(part.read_text()))
    found = {row.volume: row for row in rows}
    with open_listing(source_uri, settings) as opened:
        names = {scan.name.volume for scan in opened.unique_scans}
        if changed := sorted(names ^ found.keys()):
            raise UserError(
                f"source {source_uri} has changed while it was read: {', '.join(changed[:5])} came "
                "or went; start the run again"
            )
        outcomes: list[Outcome] = []
        for scan in opened.unique_scans:
            row = found[scan.name.volume]
            if row.entry is None:
                outcomes.append(Quarantined(row.volume, row.reason, scan.paths))
            else:
                outcomes.append(Accepted(scan, row.entry, row.bytes_written))
        return publish(opened, outcomes, store, settings)


def _row(outcome: Outcome) -> _Read:
    if isinstance(outcome, Quarantined):
        return _Read(volume=outcome.volume, reason=outcome.reason)
    name, written = outcome.entry.volume, outcome.bytes_written
    return _Read(volume=name, entry=outcome.entry, bytes_written=written)
