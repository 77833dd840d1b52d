"""The ingest step: publishes a source's patients as an immutable data set version."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from components.ingest.settings import IngestSettings
from components.ingest.table import AttributeTable, join_attributes, read_attributes
from components.ingest.workers import Accepted, Outcome, VolumeWork, usable_workers, work_on
from components.shared.dataset.gc_lock import require_volumes
from components.shared.dataset.ingest_account import IngestAccount, Quarantined
from components.shared.dataset.manifest import Manifest, make_manifest, manifest_key
from components.shared.errors import UserError
from components.shared.progress import track
from components.shared.reading.scans import Listing, Scan, list_scans, nothing_accepted
from components.shared.reading.sources.opening import open_source
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
class _Findings:
    listing: Listing
    outcomes: Sequence[Outcome]
    table: AttributeTable


@dataclass(frozen=True)
class _Verdict:
    accepted: Sequence[Accepted]
    quarantined: Sequence[Quarantined]


def ingest_source(
    source_uri: str, store: Store, settings: IngestSettings, workers: int | None = None
) -> IngestResult:
    """Checks every volume of a source, stores the good ones and publishes their manifest.

    The manifest is written last: a version exists completely or not at all. Volumes that are in
    the store are not written again, so the next ingest continues a killed one.

    Args:
        source_uri: URI for `components.shared.reading.sources.opening.open_source`.
        store: Store in which the version is published.
        settings: Limits, and whether a quarantined volume is an error.
        workers: Number of processes (default: as many as cores and free memory allow).

    Raises:
        UserError: If the source or the store cannot be used, nothing is accepted, or
            `settings.strict` is set and a volume is quarantined (the store then holds the
            account); or volumes that were in the store have been removed since.
    """
    findings = _examine(source_uri, store, settings, workers or usable_workers())
    verdict = _judge(findings)
    result = _describe(source_uri, findings, verdict)
    refusal = _refusal(source_uri, verdict, settings.strict)
    if refusal:
        raise UserError(f"{refusal}{_keep(result.account, store)}")
    _log(result.account)
    store.write(manifest_key(result.manifest.dataset_id), result.manifest.to_json())
    if result.account.objects_written < result.account.volumes:
        require_volumes(store, result.manifest)
    return result


def _examine(source_uri: str, store: Store, settings: IngestSettings, workers: int) -> _Findings:
    with open_source(source_uri, settings.max_archive_gib) as source:
        listing = list_scans(source)
        scans, shared = _one_per_patient(listing.scans)
        work = VolumeWork(source, store.uri, settings)
        outcomes = work_on(work, scans, min(workers, max(len(scans), 1)))
        return _Findings(
            listing=listing,
            outcomes=[*shared, *track(outcomes, len(scans), "volumes")],
            table=read_attributes(source, listing.tables, settings.max_file_mib),
        )


def _one_per_patient(scans: Iterable[Scan]) -> tuple[list[Scan], list[Quarantined]]:
    alone, shared = _grouped(scans, lambda scan: scan.name.patient)
    return alone, [
        Quarantined(
            scan.name.volume,
            f"patient {scan.name.patient} is in {len(group)} folders: "
            + ", ".join(other.name.volume for other in group),
            scan.paths,
        )
        for group in shared
        for scan in group
    ]


def _judge(findings: _Findings) -> _Verdict:
    accepted, twins = _one_per_image(
        [outcome for outcome in findings.outcomes if isinstance(outcome, Accepted)]
    )
    refused = [outcome for outcome in findings.outcomes if isinstance(outcome, Quarantined)]
    quarantined = [*findings.listing.quarantined, *refused, *twins]
    return _Verdict(accepted, sorted(quarantined, key=lambda bad: bad.volume))


def _one_per_image(accepted: Iterable[Accepted]) -> tuple[list[Accepted], list[Quarantined]]:
    alone, shared = _grouped(accepted, lambda volume: volume.entry.image_digest)
    return alone, [
        Quarantined(
            volume.entry.volume,
            "the same pixels are under two patients: "
            + ", ".join(sorted(other.entry.volume for other in group)),
            volume.scan.paths,
        )
        for group in shared
        for volume in group
    ]


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> tuple[list[T], list[list[T]]]:
    """Items with a unique key, and groups of items with the same key."""
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    alone = [group[0] for group in groups.values() if len(group) == 1]
    return alone, [group for group in groups.values() if len(group) > 1]


def _refusal(source_uri: str, verdict: _Verdict, strict: bool) -> str | None:
    if not verdict.accepted:
        return str(nothing_accepted(source_uri, verdict.quarantined))
    if strict and verdict.quarantined:
        reasons = "; ".join(f"{bad.volume}: {bad.reason}" for bad in verdict.quarantined[:_SHOWN])
        return (
            f"ingest is strict and {len(verdict.quarantined)} of the volumes are bad: {reasons}"
            + ("; ..." if len(verdict.quarantined) > _SHOWN else "")
            + ". Fix or remove them, or run without strict to leave them out"
        )
    return None


def _keep(account: IngestAccount, store: Store) -> str:
    if not account.quarantined:
        return ""
    refused = account.model_copy(update={"dataset_id": ""})  # nothing was published
    content = refused.model_dump_json(indent=2).encode()
    return f". {keep_report(store, 'ingest-account.json', content, noun='account')}"


def _describe(source_uri: str, findings: _Findings, verdict: _Verdict) -> IngestResult:
    patients = [scan.name.patient for scan in findings.listing.scans]
    entries, warnings = join_attributes(
        [volume.entry for volume in verdict.accepted], findings.table, patients
    )
    manifest = make_manifest(entries)
    stored = [outcome for outcome in findings.outcomes if isinstance(outcome, Accepted)]
    account = IngestAccount(
        source=source_uri,
        dataset_id=manifest.dataset_id,
        volumes=len(entries),
        slices=sum(entry.slices for entry in entries),
        tumour_slices=sum(entry.tumour_slices for entry in entries),
        quarantined=tuple(verdict.quarantined),
        ignored=_count_ignored(findings, verdict),
        files_found=findings.listing.files_found,
        files_accepted=sum(len(volume.scan.copies[0]) for volume in verdict.accepted),
        objects_written=sum(volume.bytes_written > 0 for volume in stored),
        bytes_written=sum(volume.bytes_written for volume in stored),
        warnings=tuple(warnings),
    )
    return IngestResult(manifest, account)


def _count_ignored(findings: _Findings, verdict: _Verdict) -> dict[str, int]:
    count = Counter({rule: len(paths) for rule, paths in findings.listing.ignored.items()})
    count.update(findings.table.files)
    count["identical copy"] += sum(
        len(copy) for volume in verdict.accepted for copy in volume.scan.copies[1:]
    )
    return {rule: files for rule, files in sorted(count.items()) if files}


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
