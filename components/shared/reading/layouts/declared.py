"""Layouts that settings declare: paths with fields, for images with a position in space."""

import contextlib
import datetime
import difflib
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.volumes import LabelMap, Volume
from components.shared.errors import UserError
from components.shared.reading.axial import AxialImage, check_same_grid
from components.shared.reading.layouts.formats import ImageFormat, image_format
from components.shared.reading.layouts.layout import LABEL
from components.shared.reading.layouts.patterns import PathPattern
from components.shared.reading.layouts.settings import (
    LayoutSettings,
    all_paths,
    channels_of,
    labels_of,
    targets_of,
)
from components.shared.reading.scans import (
    MIB,
    BadScanError,
    Listing,
    Scan,
    ScanName,
    SizeLimits,
    hashed_name,
    is_system_file,
    nothing_accepted,
)
from components.shared.reading.sources.source import Source, SourceFile, UnreadableFileError
from components.shared.reading.table import AttributeTable, TableForm, read_attributes
from components.shared.reading.validation import check_image, label_map, stack_channels

UNKNOWN_SITE = "unknown"
_TABLE_MIB = 64.0
_EXPECTED = "`brainseg ingest --dry-run` shows which file becomes what"

_Fields = dict[str, str]
_Case = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DeclaredLayout:
    """The layout of settings with paths.

    Attributes:
        settings: Complete settings.
        with_labels: Whether every case must have a label; otherwise labels are not read.
    """

    settings: LayoutSettings
    with_labels: bool = True

    @functools.cached_property
    def channels(self) -> Channels:
        return channels_of(self.settings)

    @functools.cached_property
    def labels(self) -> Mapping[str, int]:
        return labels_of(self.settings)

    @functools.cached_property
    def targets(self) -> tuple[Target, ...]:
        return targets_of(self.settings)

    @property
    def table(self) -> TableForm:
        name = self.settings.table.rpartition("/")[2]
        return TableForm(name, is_hashed=self.settings.hash_patients)

    @property
    def mask_suffix(self) -> str:
        return self._format.MASK_SUFFIX

    def nothing_accepted(self, source_uri: str, quarantined: Sequence[Quarantined]) -> UserError:
        return nothing_accepted(source_uri, quarantined, "no case", _EXPECTED)

    def list_scans(self, source: Source) -> Listing:
        files = source.files()
        if not files:
            raise UserError(f"source {source.uri} is empty")
        if self.with_labels and not self._patterns[LABEL]:
            raise UserError("layout.label: give the path of the label maps, e.g. {case}/seg.nii.gz")
        short = below_top(files)
        cases: dict[_Case, dict[str, list[SourceFile]]] = defaultdict(lambda: defaultdict(list))
        ignored: dict[str, list[str]] = defaultdict(list)
        tables = []
        for file in files:
            roles = self._roles(file.path) or self._roles(short[file])
            if is_system_file(file.path):
                ignored["hidden or system file"].append(file.path)
            elif not self.with_labels and LABEL in dict(roles):
                ignored["label, not read"].append(file.path)
            elif roles:
                for role, case in roles:
                    cases[case][role].append(file)
            elif self._is_table(file.path) or self._is_table(short[file]):
                tables.append(file)
            else:
                ignored["no path of the layout"].append(file.path)
        self._require_channels(cases, source.uri, list(short.values()))
        attributes = read_attributes(source, tables, _TABLE_MIB, self.table)
        scans, quarantined = self._sorted(cases, attributes)
        rules = {rule: tuple(found) for rule, found in sorted(ignored.items())}
        return Listing(scans, quarantined, rules, tuple(tables), len(files))

    def read_scan(self, source: Source, scan: Scan, limits: SizeLimits) -> Volume:
        settings, reference = self.settings, self.channels.reference
        images = self._read_images(source, scan, limits)
        self._check(images, limits)
        shown = images[reference]
        stacked = stack_channels([images.get(name, shown) for name in settings.channels])
        images.clear()  # the unpacked files
        shown = AxialImage(stacked[..., self.channels.reference_index], shown.geometry)
        if self.with_labels:
            mask = self._read_label(source, scan, shown, limits)
        else:
            mask = np.zeros(stacked.shape[:3], np.uint8)
        return Volume(stacked, mask, self.channels, shown.geometry)

    def encode_mask(
        self,
        source: Source,
        scan: Scan,
        voxels: npt.NDArray[np.uint8 | np.float32],
        targets: Sequence[str],
    ) -> bytes:
        files = self._files(source, scan, self.channels.reference)
        return self._format.encode_mask(files, voxels, targets)

    def _read_label(
        self, source: Source, scan: Scan, reference: AxialImage, limits: SizeLimits
    ) -> LabelMap:
        with _named(LABEL):
            files = self._files(source, scan, LABEL, limits)
            is_series = self._format.IS_SERIES  # whose segmentations refer to their image
            image_files = self._files(source, scan, self.channels.reference) if is_series else []
            image = self._format.read_label(files, image_files, limits.volume_bytes).chosen(None)
        check_same_grid(image, reference, LABEL, self.channels.reference)
        return label_map(image, self.labels)

    def _read_images(self, source: Source, scan: Scan, limits: SizeLimits) -> dict[str, AxialImage]:
        opened: dict[tuple[SourceFile, ...], AxialImage] = {}
        images = {}
        for name in self.settings.channels:
            if name not in scan.parts:
                continue
            with _named(name):
                files = scan.parts[name]
                if files not in opened:  # one file may hold all channels
                    contents = self._files(source, scan, name, limits)
                    opened[files] = self._format.read_image(contents, limits.volume_bytes)
                images[name] = opened[files].chosen(self._index(name))
        return images

    def _files(
        self, source: Source, scan: Scan, role: str, limits: SizeLimits | None = None
    ) -> list[tuple[str, bytes]]:
        for file in scan.parts[role]:
            if limits and file.size > limits.max_file_mib * MIB:
                raise BadScanError(
                    f"a file of {file.size / MIB:.1f} MiB, the limit is "
                    f"max_file_mib={limits.max_file_mib:g}"
                )
        return [(self._key(file.name), _bytes(source, file)) for file in scan.parts[role]]

    def _check(self, images: Mapping[str, AxialImage], limits: SizeLimits) -> None:
        reference = self.channels.reference
        for name, image in images.items():
            check_image(image, name)
            check_same_grid(image, images[reference], name, reference)
        voxel_bytes = 4 * self.channels.count + 1
        size_mib = images[reference].voxels.size * voxel_bytes / MIB
        if size_mib > limits.max_volume_mib:
            raise BadScanError(
                f"{self.channels.count} channels take {size_mib:.0f} MiB, the limit of a volume is "
                f"max_volume_mib={limits.max_volume_mib:g}"
            )

    def _index(self, role: str) -> int | None:
        return next((each.index for each in self._patterns.get(role, ())), None)

    @functools.cached_property
    def _patterns(self) -> Mapping[str, tuple[PathPattern, ...]]:
        paths = {**self.settings.channels, LABEL: self.settings.label}
        return {
            role: tuple(map(PathPattern.parse, all_paths(each))) for role, each in paths.items()
        }

    def _is_table(self, path: str) -> bool:
        table = self.settings.table
        return bool(table) and PathPattern.parse(table).match(path) is not None

    @property
    def _format(self) -> ImageFormat:
        return image_format(self.settings.format)

    def _require_channels(
        self, cases: Mapping[_Case, Mapping[str, object]], uri: str, paths: Sequence[str]
    ) -> None:
        if not cases:
            raise self._nothing_fits(uri, paths)
        for name in self.settings.channels:
            if not any(name in parts for parts in cases.values()):
                listed = " or ".join(pattern.text for pattern in self._patterns[name])
                raise UserError(
                    f"source {uri} holds no file for channel {name}: {listed}; correct the path, "
                    "or remove the channel from layout.channels"
                )

    def _roles(self, path: str) -> list[tuple[str, _Case]]:
        """The roles of a file, several if it holds several images, and its case."""
        found = [
            (role, tuple(sorted(fields.items())))
            for role, patterns in self._patterns.items()
            for pattern in patterns
            if (fields := pattern.match(path)) is not None
        ]
        return list(dict.fromkeys(found))

    def _sorted(
        self,
        cases: Mapping[_Case, Mapping[str, Sequence[SourceFile]]],
        attributes: AttributeTable,
    ) -> tuple[tuple[Scan, ...], tuple[Quarantined, ...]]:
        scans, quarantined = [], []
        for case, parts in cases.items():
            files = tuple(dict.fromkeys(file for each in parts.values() for file in each))
            volume = self._volume(dict(case))
            try:
                self._check_parts(dict(case), parts)
                name = self._name(volume, dict(case), attributes)
            except BadScanError as error:
                paths = tuple(self._key(file.path) for file in files)
                quarantined.append(Quarantined(self._key(volume), str(error), paths))
            else:
                roles = {role: tuple(each) for role, each in parts.items()}
                scans.append(Scan(name, (files,), roles, self.settings.hash_patients))
        return (
            tuple(sorted(scans, key=lambda scan: scan.name.volume)),
            tuple(sorted(quarantined, key=lambda bad: bad.volume)),
        )

    def _check_parts(self, case: _Fields, parts: Mapping[str, Sequence[SourceFile]]) -> None:
        wanted = [name for name in self.settings.channels if name not in self.settings.optional]
        for role in [*wanted, LABEL] if self.with_labels else wanted:
            if not parts.get(role):
                expected = f", expected {self._patterns[role][0].filled(case)}"
                is_hidden = self.settings.hash_patients
                raise BadScanError(f"{role} is missing{'' if is_hidden else expected}")
        seen: dict[str, str] = {}
        for role, files in parts.items():
            if len(files) > 1 and not self._format.IS_SERIES:
                listed = ", ".join(self._key(file.path) for file in files)
                raise BadScanError(f"{role} is there {len(files)} times: {listed}")
            for file in files:
                if file.problem:
                    raise BadScanError(f"{role}: {file.problem}")
                other = seen.setdefault(file.path, role)
                if other != role and self._index(role) is None:
                    raise BadScanError(f"one file is both {other} and {role}; correct the paths")

    def _volume(self, case: _Fields) -> str:
        fields = next(iter(self._patterns.values()))[0].fields
        return case.get("case") or "_".join(case[name] for name in fields if case[name])

    def _name(self, volume: str, case: _Fields, attributes: AttributeTable) -> ScanName:
        fields = {"patient": volume, **{k: v for k, v in case.items() if v}}
        if self.settings.patient:
            found = re.search(self.settings.patient, volume)
            if found is None:
                raise BadScanError("its name does not match layout.patient")
            fields |= {k: v for k, v in found.groupdict().items() if v}
        patient = self._key(fields["patient"])
        row = attributes.row(patient, self._key(volume)) or {}
        cells = {column: _text(value) for column, value in row.items() if value is not None}
        known = cells | fields
        site = known.get(self.settings.site, "") or UNKNOWN_SITE
        date = _date(known.get(self.settings.date, ""))
        return ScanName(self._key(volume), patient, site, date)

    def _key(self, name: str) -> str:
        return hashed_name(name) if self.settings.hash_patients else name

    def _nothing_fits(self, uri: str, paths: Sequence[str]) -> UserError:
        patterns = [pattern for each in self._patterns.values() for pattern in each]
        deeper = [PathPattern.parse(f"**/{pattern.text}") for pattern in patterns]
        below = next((path for path in paths for each in deeper if each.match(path)), None)
        first = patterns[0].text
        if below:
            hint = f"{below} fits below a folder: give that folder, or begin the paths with **/"
        else:
            score = functools.partial(_similarity, first)
            nearest = max(paths[:1000], key=score)
            hint = f"expected e.g. {first}; the nearest is {nearest}"
        return UserError(f"source {uri} holds no file of the layout: {hint}")


def below_top(files: Sequence[SourceFile]) -> dict[SourceFile, str]:
    """Paths of files, without the source's top folder if all files are in a single one."""
    visible = [file.path for file in files if not is_system_file(file.path)]
    tops = {path.split("/", 1)[0] for path in visible}
    is_single = len(tops) == 1 and all("/" in path for path in visible)
    start = len(tops.pop()) + 1 if is_single else 0
    return {file: file.path[start:] or file.path for file in files}


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


@contextlib.contextmanager
def _named(role: str) -> Iterator[None]:
    """Puts the role of a file before the reason of its refusal."""
    try:
        yield
    except BadScanError as error:
        raise BadScanError(f"{role}: {error}") from error


def _bytes(source: Source, file: SourceFile) -> bytes:
    try:
        return source.read(file.path)
    except UnreadableFileError as error:
        raise BadScanError(str(error)) from error


def _text(value: Any) -> str:  # noqa: ANN401 - a cell
    return f"{value:g}" if isinstance(value, float) else str(value)


def _date(text: str) -> str:
    if not text:
        return ""
    digits = text.replace("-", "")
    try:
        return f"{datetime.datetime.strptime(digits, '%Y%m%d'):%Y%m%d}"
    except ValueError as error:
        raise BadScanError(f"its date {text!r} is not yyyymmdd or yyyy-mm-dd") from error
