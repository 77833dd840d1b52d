"""Assignment of patients to parts: stratified, seeded, and stable as data grow."""

import hashlib
from collections import Counter
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
    tumour_size: float


def assign_split(manifest: Manifest, settings: SplitSettings, previous: Split | None) -> Split:
    """Divides a data set's patients into train, validation and test.

    Patients are ordered by site, within a site by tumour volume (thirds of the data set, in
    milliliters if the spacing of all volumes is known, else in pixels), and within a third at
    random. They are assigned in this order, each to the part that is furthest below its size. So
    each site and each third is divided in about the given fractions, and the sizes of the parts are
    within one patient of them. A part without tumour swaps a patient with another part, because it
    could neither train nor measure a model.

    Args:
        manifest: Manifest of the data set; the order of its volumes has no influence.
        settings: Method, seed and fractions.
        previous: Split of an older version. Its patients, identified by name, keep their part;
            patients that are no longer in the data set are dropped.

    Returns:
        A split that has passed `check_split`.

    Raises:
        UserError: If there are too few patients, or too few with tumour for each part to have
            one, or the data set lacks volumes of `report2020`.
    """
    patients = _patients(manifest)
    if settings.method == "report2020":
        kept: Assignment = dict.fromkeys(report2020_patients(manifest), "test")
    else:
        kept = _kept(previous, patients) if previous else {}
    row = [name for name in _ordered(patients, settings.seed) if name not in kept]
    sizes = _sizes(settings, _count(kept), len(row))
    return _assigned(manifest, patients, kept, row, sizes)


def assign_folds(manifest: Manifest, settings: FoldSettings) -> list[Split]:
    """Assigns a data set's patients to folds; every patient is in the test part of one split.

    Patients are assigned in turn, in the same order as by `assign_split`, so that sites and
    tumour volumes are balanced between folds. Some patients outside a fold form its validation
    part.

    Args:
        manifest: Manifest of the data set; the order of its volumes has no influence.
        settings: Number of folds, seed and fraction.

    Returns:
        One split per fold, each of which has passed `check_split`.

    Raises:
        UserError: If a fold would be empty or without tumour, or leave no patient for training.
    """
    patients = _patients(manifest)
    if settings.folds > len(patients):
        raise UserError(f"split: {len(patients)} patients leave folds of {settings.folds} empty")
    row = _ordered(patients, settings.seed)
    validation = max(1, round(settings.validation_fraction * len(row)))

    def split(fold: int) -> Split:
        test: Assignment = dict.fromkeys(row[fold :: settings.folds], "test")
        others = [name for name in row if name not in test]
        wanted: Sizes = {"train": len(others) - validation, "validation": validation, "test": 0}
        return _assigned(manifest, patients, test, others, _no_part_empty(wanted, _count(test)))

    return [split(fold) for fold in range(settings.folds)]


def assign_members(manifest: Manifest, settings: FoldSettings, split: Split) -> list[Split]:
    """Assigns the patients outside a test part to folds, for the members of an ensemble.

    Patients are assigned in turn, in the same order as by `assign_split`. Each fold is the
    validation part of one member, and the other folds are its training part. The test part is that
    of `split` for all members.

    Args:
        manifest: Manifest of the data set; the order of its volumes has no influence.
        settings: Number of folds and seed; the fraction has no influence.
        split: Split with the test part.

    Returns:
        One split per fold, each of which has passed `check_split`.

    Raises:
        UserError: If a fold would be empty or without tumour, or leave no patient for training.
    """
    patients = _patients(manifest)
    test: Assignment = dict.fromkeys(split.patients("test"), "test")
    row = [name for name in _ordered(patients, settings.seed) if name not in test]
    if settings.folds > len(row):
        raise UserError(f"split: {len(row)} patients leave folds of {settings.folds} empty")

    def member(fold: int) -> Split:
        validation: Assignment = dict.fromkeys(row[fold :: settings.folds], "validation")
        others = [name for name in row if name not in validation]
        wanted: Sizes = {"train": len(others), "validation": 0, "test": 0}
        return _assigned(manifest, patients, test | validation, others, wanted)

    return [member(fold) for fold in range(settings.folds)]


def describe_split(split: Split, manifest: Manifest) -> list[str]:
    """Describes each part in one line: patients, sites, slices and tumour."""
    return [_describe(part, split.entries(part, manifest)) for part in PARTS]


def _patients(manifest: Manifest) -> list[_Patient]:
    ordered = sorted(manifest.volumes, key=lambda entry: (entry.patient, entry.volume))
    groups = groupby(ordered, key=lambda entry: entry.patient)
    milliliters = {e.volume: e.tumour_ml for e in ordered if e.tumour_ml is not None}
    in_ml = len(milliliters) == len(ordered)
    sizes = milliliters if in_ml else {e.volume: e.tumour_pixels for e in ordered}
    return [
        _Patient(name, entries[0].site, max(sizes[entry.volume] for entry in entries))
        for name, entries in ((name, list(entries)) for name, entries in groups)
    ]


def _kept(previous: Split, patients: Sequence[_Patient]) -> Assignment:
    part_of = {patient: part for part in PARTS for patient in previous.patients(part)}
    return {patient.name: part_of[patient.name] for patient in patients if patient.name in part_of}


def _count(parts: Assignment) -> Sizes:
    return {part: list(parts.values()).count(part) for part in PARTS}


def _sizes(settings: SplitSettings, kept: Sizes, new: int) -> Sizes:
    """Returns the number of new patients of each part that brings it close to its fraction."""
    validation, test, counted = settings.validation_fraction, settings.test_fraction, kept
    if settings.method == "report2020":  # fractions of the patients outside its test part
        test, counted = 0.0, dict.fromkeys(PARTS, 0)
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    total = new + sum(counted.values())
    wanted = {part: max(0.0, fractions[part] * total - counted[part]) for part in PARTS}
    return _no_part_empty(_whole_numbers(wanted, new), kept)


def _whole_numbers(wanted: dict[Part, float], total: int) -> Sizes:
    """Scales numbers to a total and rounds them by largest remainder."""
    scale = total / max(sum(wanted.values()), 1e-9)
    sizes = {part: int(wanted[part] * scale) for part in PARTS}
    by_remainder = sorted(PARTS, key=lambda part: sizes[part] - wanted[part] * scale)
    for part in by_remainder[: total - sum(sizes.values())]:
        sizes[part] += 1
    return sizes


def _no_part_empty(sizes: Sizes, kept: Sizes) -> Sizes:
    for part in PARTS:
        if sizes[part] + kept[part] == 0:
            largest = max(PARTS, key=lambda other: (sizes[other], sizes[other] + kept[other]))
            if sizes[largest] == 0 or sizes[largest] + kept[largest] == 1:
                raise UserError(
                    f"split: {sum(sizes.values()) + sum(kept.values())} patients leave the "
                    f"{part} part empty; train, validation and test need one each: add patients"
                    " or drop `previous`"
                )
            sizes = {**sizes, largest: sizes[largest] - 1, part: 1}
    return sizes


def _ordered(patients: Sequence[_Patient], seed: int) -> list[str]:
    """Returns the patients in the order of assignment."""
    ranked = sorted(patients, key=lambda patient: (patient.tumour_size, patient.name))
    group = {
        patient.name: rank * _SIZE_GROUPS // len(patients) for rank, patient in enumerate(ranked)
    }

    def place(patient: _Patient) -> tuple[str, str, int, str]:
        # The order of sites depends on the seed, so that no part always gets the first patients.
        chance = _chance(seed, patient.site)
        # Alternating direction of thirds: neighbors in the row stay similar between sites.
        direction = 1 if int(chance, 16) % 2 else -1
        third = direction * group[patient.name]
        return (chance, patient.site, third, _chance(seed, patient.name))

    return [patient.name for patient in sorted(patients, key=place)]


def _chance(seed: int, name: str) -> str:
    # A digest depends only on seed and name, not on order, count or Python's version.
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _assigned(
    manifest: Manifest,
    patients: Sequence[_Patient],
    kept: Assignment,
    row: Sequence[str],
    sizes: Sizes,
) -> Split:
    """Returns the split of the patients who keep their part and those of a row."""
    parts = _spread_tumour(kept | dict(_deal(row, sizes)), patients, row)
    split = make_split(
        {part: [e for e in manifest.volumes if parts[e.patient] == part] for part in PARTS}
    )
    check_split(split, manifest)
    return split


def _deal(row: Sequence[str], sizes: Sizes) -> Iterable[tuple[str, Part]]:
    given = dict.fromkeys(PARTS, 0)
    for place, name in enumerate(row, start=1):
        part = max(
            (part for part in PARTS if given[part] < sizes[part]),
            key=lambda part: sizes[part] * place - given[part] * len(row),
        )
        given[part] += 1
        yield name, part


def _spread_tumour(
    parts: Assignment, patients: Sequence[_Patient], row: Sequence[str]
) -> Assignment:
    """Swaps new patients, if possible similar ones, until every part has tumour."""
    site = {patient.name: patient.site for patient in patients}
    place = {name: number for number, name in enumerate(row)}
    tumour = {patient.name for patient in patients if patient.tumour_size}

    def unlike(pair: tuple[str, str]) -> tuple[bool, int]:
        one, other = pair
        return (site[one] != site[other], abs(place[one] - place[other]))

    for part in PARTS:
        with_tumour = Counter(parts[name] for name in tumour)
        if with_tumour[part]:
            continue
        givers = [name for name in row if name in tumour and with_tumour[parts[name]] > 1]
        takers = [name for name in row if parts[name] == part]
        if not givers or not takers:
            raise UserError(
                f"split: the {part} part would have no patient with tumour (the data set has "
                f"{len(tumour)}); train, validation and test need one each: add patients with "
                "tumour or drop `previous`"
            )
        giver, taker = min(product(givers, takers), key=unlike)
        parts = parts | {giver: part, taker: parts[giver]}
    return parts


def _describe(part: Part, entries: Sequence[VolumeEntry]) -> str:
    sites = Counter(site for site, _ in {(entry.site, entry.patient) for entry in entries})
    slices = sum(entry.slices for entry in entries)
    tumour = sum(entry.tumour_slices for entry in entries) / slices
    shown = ", ".join(f"{site} {sites[site]}" for site in sorted(sites))
    return f"{part}: {sites.total()} patients ({shown}), {slices} slices, {tumour:.1%} with tumour"
