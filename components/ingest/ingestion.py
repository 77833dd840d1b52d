"""The ingest step: publishes a source's patients as an immutable data set version."""

import functools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from components.ingest.settings import IngestSettings
from components.ingest.workers import Accepted, Outcome, VolumeWork, usable_workers, work_on
from components.shared.dataset.gc_lock import require_volumes
from components.shared.dataset.ingest_account import IngestAccount, Quarantined
from components.shared.dataset.manifest import Manifest, fetch_manifest, make_manifest, manifest_key
from components.shared.errors import UserError
from components.shared.progress import track
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.scans import Listing, Scan
from components.shared.reading.sources import dataset
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import Source
from components.shared.reading.table import AttributeTable, join_attributes, read_attributes
from components.shared.report.kept import keep_report
from components.shared.storage.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SHOWN = 20


@dataclass(frozen=True)
class IngestResult:
    """A published version and the account of its files."""

    manifest: Manifest
    account: IngestAccount


@dataclass(frozen=True)
class OpenedSource:
    """A source while it is open, and its files by scan."""

    source: Source
    layout: Layout
    listing: Listing

    @functools.cached_property
    def unique_scans(self) -> list[Scan]:
        """Scans of distinct patients or days, in the order of their names."""
        return _grouped(self.listing.scans, _one_day)[0]

    @property
    def doubled(self) -> list[Quarantined]:
        """Scans of one patient and day, which cannot be distinguished."""
        return [
            Quarantined(
                scan.name.volume,
                f"patient {scan.name.patient} has {len(group)} scans of one day: "
                + ", ".join(other.name.volume for other in group),
                scan.paths,
            )
            for group in _grouped(self.listing.scans, _one_day)[1]
            for scan in group
        ]


def _one_day(scan: Scan) -> tuple[str, str]:
    # where the day is unknown, names of cases distinguish a patient's scans
    return scan.name.patient, scan.name.date or scan.name.volume


def ingest_source(
    source_uri: str, store: Store, settings: IngestSettings, workers: int | None = None
) -> IngestResult:
    """Checks every volume of a source, stores the good ones and publishes their manifest.

    The manifest is written last: a version exists completely or not at all. Volumes that are in
    the store are not written again, so the next ingest continues a killed one.

    Args:
        source_uri: URI for `components.shared.reading.sources.opening.open_source`, or
            `dataset:ID` for a version that the store has.
        store: Store in which the version is published.
        settings: Limits, and whether a quarantined volume is an error.
        workers: Number of processes (default: as many as cores and free memory allow).

    Raises:
        UserError: If the source or the store cannot be used, nothing is accepted, or
            `settings.strict` is set and a volume is quarantined (the store then holds the
            account); or volumes that were in the store have been removed since.
    """
    if source_uri.startswith(dataset.SCHEME):
        return _published_before(source_uri, store)
    with open_listing(source_uri, settings) as opened:
        outcomes = read_volumes(opened, opened.unique_scans, store, settings, workers)
        return publish(opened, outcomes, store, settings)


def _published_before(source_uri: str, store: Store) -> IngestResult:
    manifest = fetch_manifest(store, dataset.dataset_id_of(source_uri))
    require_volumes(store, manifest)
    account = _account(source_uri, manifest)
    logger.info("data set %s: %d volumes, read before", account.dataset_id, account.volumes)
    return IngestResult(manifest, account)


@contextmanager
def open_listing(source_uri: str, settings: IngestSettings) -> Iterator[OpenedSource]:
    """Opens a source and lists its scans.

    Raises:
        UserError: If the source cannot be used, or nothing in it fits the layout.
    """
    with open_source(source_uri, settings.max_archive_gib) as source:
        layout = open_layout(settings.layout, source)
        yield OpenedSource(source, layout, layout.list_scans(source))


def read_volumes(
    opened: OpenedSource,
    scans: Sequence[Scan],
    store: Store,
    settings: IngestSettings,
    workers: int | None = None,
) -> list[Outcome]:
    """Checks and stores volumes; see `ingest_source`."""
    work = VolumeWork(opened.source, store.uri, settings, opened.layout)
    count = min(workers or usable_workers(settings.limits.worker_bytes), max(len(scans), 1))
    return list(track(work_on(work, scans, count), len(scans), "volumes"))


def publish(
    opened: OpenedSource, outcomes: Sequence[Outcome], store: Store, settings: IngestSettings
) -> IngestResult:
    """Publishes the version of all accepted volumes; see `ingest_source`.

    Args:
        opened: Source of the volumes.
        outcomes: Outcome of each of `opened.unique_scans`.
        store: Store that has the accepted volumes.
        settings: Limits, and whether a quarantined volume is an error.
    """
    source, layout, listing = opened.source, opened.layout, opened.listing
    table = read_attributes(source, listing.tables, settings.max_file_mib, layout.table)
    judged = [*opened.doubled, *outcomes]
    result = _judge(source.uri, layout, listing, judged, table)
    manifest, account = result.manifest, result.account
    _require_fit(account, layout, settings.strict, store)
    _log(account)
    store.write(manifest_key(manifest.dataset_id), manifest.to_json())
    if account.objects_written < account.volumes:
        require_volumes(store, manifest)
    return result


def _judge(
    source_uri: str,
    layout: Layout,
    listing: Listing,
    outcomes: Sequence[Outcome],
    table: AttributeTable,
) -> IngestResult:
    stored = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    accepted, twins = _one_per_image(stored)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Quarantined)]
    quarantined = sorted([*listing.quarantined, *refused, *twins], key=lambda bad: bad.volume)
    patients = [name for scan in listing.scans for name in (scan.name.patient, scan.name.volume)]
    entries, warnings = join_attributes([volume.entry for volume in accepted], table, patients)
    manifest = make_manifest(entries, layout.channels, layout.labels, layout.targets)
    account = _account(
        source_uri,
        manifest,
        quarantined=tuple(quarantined),
        ignored=_count_ignored(listing, table, accepted),
        files_found=listing.files_found,
        files_accepted=sum(len(volume.scan.copies[0]) for volume in accepted),
        objects_written=sum(volume.bytes_written > 0 for volume in stored),
        bytes_written=sum(volume.bytes_written for volume in stored),
        warnings=tuple(warnings),
    )
    return IngestResult(manifest, account)


def _account(source_uri: str, manifest: Manifest, **files: Any) -> IngestAccount:  # noqa: ANN401
    """Counts a version; `files` are the other fields, where files were read."""
    return IngestAccount(
        source=source_uri,
        dataset_id=manifest.dataset_id,
        volumes=len(manifest.volumes),
        slices=sum(entry.slices for entry in manifest.volumes),
        tumour_slices=sum(entry.tumour_slices for entry in manifest.volumes),
        **files,
    )


def _one_per_image(accepted: Iterable[Accepted]) -> tuple[list[Accepted], list[Quarantined]]:
    alone, shared = _grouped(accepted, lambda volume: volume.entry.image_digest)
    return alone, [
        Quarantined(
            volume.entry.volume,
            "the same pixels are under several names: "
            + ", ".join(sorted(other.entry.volume for other in group)),
            volume.scan.paths,
        )
        for group in shared
        for volume in group
    ]


def _grouped(items: Iterable[T], key: Callable[[T], object]) -> tuple[list[T], list[list[T]]]:
    """Items with a unique key, and groups of items with the same key."""
    groups: dict[object, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    alone = [group[0] for group in groups.values() if len(group) == 1]
    return alone, [group for group in groups.values() if len(group) > 1]


def _count_ignored(
    listing: Listing, table: AttributeTable, accepted: Sequence[Accepted]
) -> dict[str, int]:
    count = Counter({rule: len(paths) for rule, paths in listing.ignored.items()})
    count.update(table.files)
    count["identical copy"] += sum(len(copy) for each in accepted for copy in each.scan.copies[1:])
    return {rule: files for rule, files in sorted(count.items()) if files}


def _require_fit(account: IngestAccount, layout: Layout, strict: bool, store: Store) -> None:
    bad = account.quarantined
    if not account.volumes:
        refusal = str(layout.nothing_accepted(account.source, bad))
    elif strict and bad:
        reasons = "; ".join(f"{one.volume}: {one.reason}" for one in bad[:_SHOWN])
        refusal = (
            f"ingest is strict and {len(bad)} of the volumes are bad: {reasons}"
            + ("; ..." if len(bad) > _SHOWN else "")
            + ". Fix or remove them, or run without strict to leave them out"
        )
    else:
        return
    if bad:
        unpublished = account.model_copy(update={"dataset_id": ""})
        content = unpublished.model_dump_json(indent=2).encode()
        refusal += f". {keep_report(store, 'ingest-account.json', content, noun='account')}"
    raise UserError(refusal)


def _log(account: IngestAccount) -> None:
    for bad in account.quarantined[:_SHOWN]:
        logger.warning("quarantined %s: %s (%d files)", bad.volume, bad.reason, len(bad.files))
    if len(account.quarantined) > _SHOWN:
        logger.warning("quarantined %d more volumes", len(account.quarantined) - _SHOWN)
    for warning in account.warnings:
        logger.warning("%s", warning)
    for rule, files in account.ignored.items():
        logger.info("ignored, %s: %d", rule, files)
    logger.info("%s", account.accounting())
    logger.info(
        "data set %s: wrote %d volumes, %.1f MB",
        account.dataset_id,
        account.objects_written,
        account.bytes_written / 1e6,
    )
