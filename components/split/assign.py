"""Which patient belongs to which part: stratified, seeded, and stable as data grow."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, product

from components.shared.dataset.manifest import Manifest, VolumeEntry
from components.shared.dataset.split import PARTS, Part, Split, check_split, make_split
from components.shared.errors import UserError
from components.split.report2020 import report2020_patients
from components.split.settings import FoldSettings, SplitSettings

_SIZE_GROUPS = 3  # thirds by tumour volume

Assignment = dict[str, Part]  # patient -> part
Sizes = dict[Part, int]


@dataclass(frozen=True)
class _Patient:
    name: str
    site: str
    tumour_pixels: int


def assign_split(manifest: Manifest, settings: SplitSettings, previous: Split | None) -> Split:
    """Divides a data set's patients into train, validation and test.

    Patients are put in a row, by site, within a site by tumour volume (thirds of the data
    set), within a third by chance, and dealt along it to whichever part lags furthest behind its
    size. So every stretch of the row, a site or a third of it, is shared in about the asked
    fractions, and the parts' sizes are within one patient of them. A part left without a
    patient with tumour gets one in exchange: without tumour it trains and measures nothing.

    Args:
        manifest: The data set. The order of its volumes has no influence.
        settings: Method, seed and fractions.
        previous: A split of an older version. Its patients, found by name whatever their
            volumes are called now, keep their part; those who left are dropped.

    Returns:
        A split that has passed `check_split`.

    Raises:
        UserError: If there are too few patients, or too few with tumour for each part to have
            one, or `report2020` lacks volumes.
    """
    patients = _patients(manifest)
    if settings.method == "report2020":
        kept: Assignment = dict.fromkeys(report2020_patients(manifest), "test")
    else:
        kept = _kept(previous, patients) if previous else {}
    new = [patient for patient in patients if patient.name not in kept]
    sizes = _sizes(settings, _count(kept.values()), len(new))
    row = _in_a_row(patients, set(kept), settings.seed)
    parts = kept | dict(_deal(row, sizes))
    split = _in_parts(manifest, _share_tumour(parts, patients, row))
    check_split(split, manifest)
    return split


def assign_folds(manifest: Manifest, settings: FoldSettings) -> list[Split]:
    """Deals a data set's patients to folds; every patient is in the test part of one split.

    They are dealt in turn along the same row as by `assign_split`, so that each fold has its
    share of every site and tumour volume. Of those outside a fold some validate its training.

    Args:
        manifest: The data set. The order of its volumes has no influence.
        settings: Number of folds, seed and fraction.

    Returns:
        One split a fold, each of which has passed `check_split`.

    Raises:
        UserError: If a fold would be empty or without tumour, or leave nobody to learn from.
    """
    patients = _patients(manifest)
    if settings.folds > len(patients):
        raise UserError(f"split: {len(patients)} patients leave folds of {settings.folds} empty")
    row = _in_a_row(patients, set(), settings.seed)
    return [_fold(manifest, patients, row, settings, fold) for fold in range(settings.folds)]


def _fold(
    manifest: Manifest,
    patients: Sequence[_Patient],
    row: Sequence[str],
    settings: FoldSettings,
    fold: int,
) -> Split:
    test = row[fold :: settings.folds]
    others = [name for place, name in enumerate(row) if place % settings.folds != fold]
    tested = _count(["test"] * len(test))
    validation = max(1, round(settings.validation_fraction * len(row)))
    wanted: Sizes = {"train": len(others) - validation, "validation": validation, "test": 0}
    parts: Assignment = dict.fromkeys(test, "test")
    parts |= dict(_deal(others, _no_part_empty(wanted, tested)))
    split = _in_parts(manifest, _share_tumour(parts, patients, others))
    check_split(split, manifest)
    return split


def describe_split(split: Split, manifest: Manifest) -> list[str]:
    """One line a part for people: patients, slices, tumour and sites."""
    return [_describe(part, split.entries(part, manifest)) for part in PARTS]


def _patients(manifest: Manifest) -> list[_Patient]:
    ordered = sorted(manifest.volumes, key=lambda entry: (entry.patient, entry.volume))
    return [
        _merge(name, list(entries))
        for name, entries in groupby(ordered, key=lambda entry: entry.patient)
    ]


def _merge(name: str, entries: list[VolumeEntry]) -> _Patient:
    return _Patient(name, entries[0].site, max(entry.tumour_pixels for entry in entries))


def _kept(previous: Split, patients: Sequence[_Patient]) -> Assignment:
    part_of = {patient: part for part in PARTS for patient in previous.patients(part)}
    return {patient.name: part_of[patient.name] for patient in patients if patient.name in part_of}


def _count(parts: Iterable[Part]) -> Sizes:
    counts = dict.fromkeys(PARTS, 0)
    for part in parts:
        counts[part] += 1
    return counts


def _sizes(settings: SplitSettings, kept: Sizes, new: int) -> Sizes:
    """How many new patients each part takes, so that the whole comes close to the fractions."""
    if settings.method == "report2020":
        fractions = _fractions(settings.validation_fraction, 0.0)
        wanted = {part: fractions[part] * new for part in PARTS}
    else:
        fractions = _fractions(settings.validation_fraction, settings.test_fraction)
        total = new + sum(kept.values())
        wanted = {part: max(0.0, fractions[part] * total - kept[part]) for part in PARTS}
    return _no_part_empty(_whole_numbers(wanted, new), kept)


def _fractions(validation: float, test: float) -> dict[Part, float]:
    return {"train": 1 - validation - test, "validation": validation, "test": test}


def _whole_numbers(wanted: dict[Part, float], total: int) -> Sizes:
    """Scales to the total and rounds by largest remainder."""
    scale = total / max(sum(wanted.values()), 1e-9)
    sizes = {part: int(wanted[part] * scale) for part in PARTS}
    behind = sorted(PARTS, key=lambda part: sizes[part] - wanted[part] * scale)
    for part in behind[: total - sum(sizes.values())]:
        sizes[part] += 1
    return sizes


def _no_part_empty(sizes: Sizes, kept: Sizes) -> Sizes:
    for part in PARTS:
        if sizes[part] + kept[part] == 0:
            giver = max(PARTS, key=lambda other: (sizes[other], sizes[other] + kept[other]))
            if sizes[giver] == 0 or sizes[giver] + kept[giver] == 1:
                raise UserError(
                    f"split: {sum(sizes.values()) + sum(kept.values())} patients leave the "
                    f"{part} part empty; train, validation and test need one each: add patients"
                    " or drop `previous`"
                )
            sizes = {**sizes, giver: sizes[giver] - 1, part: 1}
    return sizes


def _in_a_row(patients: Sequence[_Patient], kept: set[str], seed: int) -> list[str]:
    """New patients in the order in which they are dealt."""
    group = _size_groups(patients)

    def place(patient: _Patient) -> tuple[str, str, int, str]:
        # Seeded order of sites, so that no part is always the first to be served.
        chance = _chance(seed, patient.site)
        # Back and forth through the thirds: neighbours in the row stay alike between sites.
        direction = 1 if int(chance, 16) % 2 else -1
        third = direction * group[patient.name]
        return (chance, patient.site, third, _chance(seed, patient.name))

    return [patient.name for patient in sorted(patients, key=place) if patient.name not in kept]


def _size_groups(patients: Sequence[_Patient]) -> dict[str, int]:
    ranked = sorted(patients, key=lambda patient: (patient.tumour_pixels, patient.name))
    return {
        patient.name: rank * _SIZE_GROUPS // len(patients) for rank, patient in enumerate(ranked)
    }


def _chance(seed: int, name: str) -> str:
    # A digest depends on nothing but seed and name: not on order, count or Python's version.
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _deal(row: Sequence[str], sizes: Sizes) -> Iterable[tuple[str, Part]]:
    given = dict.fromkeys(PARTS, 0)
    for place, name in enumerate(row, start=1):
        part = max(
            (part for part in PARTS if given[part] < sizes[part]),
            key=lambda part: sizes[part] * place - given[part] * len(row),
        )
        given[part] += 1
        yield name, part


def _share_tumour(
    parts: Assignment, patients: Sequence[_Patient], row: Sequence[str]
) -> Assignment:
    """Swaps new patients, alike if possible, until every part has one with tumour."""
    site = {patient.name: patient.site for patient in patients}
    place = {name: number for number, name in enumerate(row)}
    tumour = {patient.name for patient in patients if patient.tumour_pixels}

    def unlike(pair: tuple[str, str]) -> tuple[bool, int]:
        one, other = pair
        return (site[one] != site[other], abs(place[one] - place[other]))

    for part in PARTS:
        having = Counter(parts[name] for name in tumour)
        if having[part]:
            continue
        givers = [name for name in row if name in tumour and having[parts[name]] > 1]
        takers = [name for name in row if parts[name] == part]
        if not givers or not takers:
            raise _lacks_tumour(part, len(tumour))
        giver, taker = min(product(givers, takers), key=unlike)
        parts = parts | {giver: part, taker: parts[giver]}
    return parts


def _lacks_tumour(part: Part, patients: int) -> UserError:
    return UserError(
        f"split: the {part} part would have no patient with tumour (the data set has {patients}); "
        "train, validation and test need one each: add patients with tumour or drop `previous`"
    )


def _in_parts(manifest: Manifest, parts: Assignment) -> Split:
    entries: dict[Part, list[VolumeEntry]] = {part: [] for part in PARTS}
    for entry in manifest.volumes:
        entries[parts[entry.patient]].append(entry)
    return make_split(entries)


def _describe(part: Part, entries: Sequence[VolumeEntry]) -> str:
    sites: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        sites[entry.site].add(entry.patient)
    slices = sum(entry.slices for entry in entries)
    tumour = sum(entry.tumour_slices for entry in entries) / slices
    shown = ", ".join(f"{site} {len(sites[site])}" for site in sorted(sites))
    patients = sum(map(len, sites.values()))
    return f"{part}: {patients} patients ({shown}), {slices} slices, {tumour:.1%} with tumour"
