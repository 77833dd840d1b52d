"""The plan of an ingest: which file becomes what, before an image is read."""

from components.ingest.ingestion import open_listing
from components.ingest.settings import IngestSettings
from components.shared.config import Record
from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.ingest_account import Quarantined
from components.shared.reading.scans import Scan


class PlannedVolume(Record):
    """A volume that the next ingest reads.

    Attributes:
        volume: Its name.
        patient: The person.
        site: The institution.
        date: Day of the scan; empty if unknown.
        files: Files by channel or `label`; by `slices` where slices are files.
    """

    volume: str
    patient: str
    site: str
    date: str
    files: dict[str, tuple[str, ...]]


class IngestPlan(Record):
    """Use of each file of a source.

    Attributes:
        source: URI of the source.
        channels: Channels of all images.
        labels: Values of the label maps.
        targets: Targets of the data set.
        volumes: Volumes with all their files.
        quarantined: Volumes that lack files or have too many.
        ignored: Number of other files by the rule that ignores them.
        tables: Tables of patients.
        files_found: Number of all files.
    """

    source: str
    channels: Channels
    labels: dict[str, int]
    targets: tuple[Target, ...]
    volumes: tuple[PlannedVolume, ...]
    quarantined: tuple[Quarantined, ...]
    ignored: dict[str, int]
    tables: tuple[str, ...]
    files_found: int


def plan_ingest(source_uri: str, settings: IngestSettings) -> IngestPlan:
    """Lists which file of a source becomes what; images are not read.

    Raises:
        UserError: If the source cannot be used, or no volume has all its files.
    """
    with open_listing(source_uri, settings) as opened:
        layout, listing = opened.layout, opened.listing
    quarantined = (*listing.quarantined, *opened.doubled)
    if not opened.unique_scans:
        raise layout.nothing_accepted(source_uri, quarantined)
    return IngestPlan(
        source=source_uri,
        channels=layout.channels,
        labels=dict(layout.labels),
        targets=layout.targets,
        volumes=tuple(map(_planned, opened.unique_scans)),
        quarantined=quarantined,
        ignored={rule: len(paths) for rule, paths in listing.ignored.items()},
        tables=tuple(file.path for file in listing.tables),
        files_found=listing.files_found,
    )


def plan_lines(plan: IngestPlan) -> list[str]:
    """Describes a plan for people."""
    channels = ", ".join(plan.channels.names)
    labels = ", ".join(f"{name}={value}" for name, value in plan.labels.items())
    targets = "; ".join(
        f"{each.name} = {', '.join(map(str, each.labels))}" for each in plan.targets
    )
    lines = [f"channels {channels} (reference {plan.channels.reference})"]
    lines += [f"labels {labels}; targets {targets}"]
    for volume in plan.volumes:
        date = f", date {volume.date}" if volume.date else ""
        lines.append(f"{volume.volume}: patient {volume.patient}, site {volume.site}{date}")
        lines += [f"  {role:12} {_shown(paths)}" for role, paths in volume.files.items()]
    for bad in plan.quarantined:
        lines.append(f"{bad.volume}: quarantined, {bad.reason}")
    lines += [f"table: {path}" for path in plan.tables]
    lines += [f"ignored, {rule}: {files}" for rule, files in plan.ignored.items()]
    counts = f"{len(plan.volumes)} volumes to read, {len(plan.quarantined)} quarantined, "
    return [*lines, f"{counts}{sum(plan.ignored.values())} of {plan.files_found} files ignored"]


def _planned(scan: Scan) -> PlannedVolume:
    parts = scan.parts or {"slices": scan.copies[0]}
    files = {role: tuple(file.path for file in files) for role, files in parts.items()}
    name = scan.name
    return PlannedVolume(
        volume=name.volume, patient=name.patient, site=name.site, date=name.date, files=files
    )


def _shown(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"
