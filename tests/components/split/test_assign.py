import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from components.shared.dataset.geometry import Geometry
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.split import PARTS
from components.shared.errors import UserError
from components.split.assign import assign_folds, assign_members, assign_split, describe_split
from components.split.report2020 import REPORT2020_VOLUMES
from components.split.settings import FoldSettings, SplitSettings

DEFAULT = SplitSettings()

sites = st.sampled_from(["CS", "DU", "EZ", "FG", "HT"])
patients_of_sites = st.lists(st.tuples(sites, st.integers(1, 5000)), min_size=3, max_size=120)
with_few_tumours = st.builds(
    lambda tumours, rest, order: order.sample(tumours + rest, len(tumours + rest)),
    st.lists(st.tuples(sites, st.integers(1, 5000)), min_size=3, max_size=5),
    st.lists(st.tuples(sites, st.just(0)), max_size=60),
    st.randoms(use_true_random=False),
)
split_settings = st.builds(
    SplitSettings,
    seed=st.integers(0, 1000),
    validation_fraction=st.floats(0.05, 0.4),
    test_fraction=st.floats(0.05, 0.4),
)


@pytest.fixture(scope="session")
def build(make_entry):
    """Makes a data set of (site, tumour pixels) pairs."""

    def build(pairs, first=0):
        return make_manifest(
            make_entry(number, site=site, tumour_pixels=pixels)
            for number, (site, pixels) in enumerate(pairs, start=first)
        )

    return build


@given(pairs=patients_of_sites, options=split_settings)
def test_every_volume_is_in_one_part_and_sizes_are_within_one_of_the_fractions(
    build, pairs, options
):
    manifest = build(pairs)
    split = assign_split(manifest, options, None)
    named = [volume for part in PARTS for volume in split.part(part)]
    assert sorted(named) == [entry.volume for entry in manifest.volumes]
    targets = {part: fraction * len(pairs) for part, fraction in fractions(options).items()}
    within = 1 if min(targets.values()) >= 1 else 2  # 2: an empty part was given a patient
    for part, target in targets.items():
        assert split.part(part)
        assert abs(len(split.part(part)) - target) <= within


@given(pairs=with_few_tumours, options=split_settings)
def test_every_part_has_tumour_if_three_patients_do(build, pairs, options):
    manifest = build(pairs)
    split = assign_split(manifest, options, None)
    for part in PARTS:
        assert any(entry.tumour_pixels for entry in split.entries(part, manifest))
    everywhere = assign_split(build([(site, pixels + 1) for site, pixels in pairs]), options, None)
    assert all(len(split.part(part)) == len(everywhere.part(part)) for part in PARTS)


@pytest.mark.parametrize("tumours", [0, 1, 2])
def test_too_few_patients_with_tumour(build, tumours):
    manifest = build([("CS", int(number < tumours)) for number in range(30)])
    message = rf"part would have no patient with tumour \(the data set has {tumours}\); train, val"
    with pytest.raises(UserError, match=message):
        assign_split(manifest, DEFAULT, None)


def test_a_previous_split_may_leave_a_part_without_tumour(build):
    manifest = build([("CS", 100 + number) for number in range(30)])
    previous = assign_split(manifest, DEFAULT, None)
    empty = [
        entry.model_copy(update={"tumour_pixels": 0}) if entry.patient in previous.test else entry
        for entry in manifest.volumes
    ]
    with pytest.raises(UserError, match=r"the test part would have no patient .* drop `previous`"):
        assign_split(make_manifest(empty), DEFAULT, previous)
    grown = make_manifest([*empty, *build([("CS", 0)] * 14 + [("CS", 5)], first=1000).volumes])
    split = assign_split(grown, DEFAULT, previous)
    assert any(entry.tumour_pixels for entry in split.entries("test", grown))
    before, after = part_of(previous), part_of(split)
    assert all(after[volume] == before[volume] for volume in before)


@given(
    pairs=patients_of_sites | with_few_tumours,
    options=split_settings,
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_volumes_has_no_influence(build, pairs, options, order):
    manifest = build(pairs)
    shuffled = list(manifest.volumes)
    order.shuffle(shuffled)
    other = manifest.model_copy(update={"volumes": tuple(shuffled)})
    assert assign_split(manifest, options, None) == assign_split(other, options, None)


@given(pairs=patients_of_sites, options=split_settings)
def test_each_site_is_shared_in_about_the_fractions(build, pairs, options):
    manifest = build(pairs)
    split = assign_split(manifest, options, None)
    patients = Counter(site for site, _ in pairs)
    for part in PARTS:
        share = len(split.part(part)) / len(pairs)
        found = Counter(entry.site for entry in split.entries(part, manifest))
        for site, count in patients.items():
            assert abs(found[site] - share * count) <= 1.5


@given(
    old=patients_of_sites,
    new=st.lists(st.tuples(st.sampled_from(["CS", "XX"]), st.integers(1, 5000)), max_size=60),
    gone=st.sets(st.integers(0, 119)),
    options=split_settings,
)
def test_patients_keep_their_part_and_new_ones_pull_towards_the_fractions(
    build, make_entry, old, new, gone, options
):
    previous_data = build(old)
    previous = assign_split(previous_data, options, None)
    stay = [entry for number, entry in enumerate(previous_data.volumes) if number not in gone]
    manifest = make_manifest([*stay, *build(new, first=1000).volumes])
    before = part_of(previous)
    left_empty = set(PARTS) - {before[entry.volume] for entry in stay}
    assume(len(new) >= len(left_empty))
    split = assign_split(manifest, options, previous)
    after = part_of(split)
    assert all(after[entry.volume] == before[entry.volume] for entry in stay)
    for part, fraction in fractions(options).items():
        kept = sum(before[entry.volume] == part for entry in stay)
        target = fraction * len(manifest.volumes)
        assert len(split.part(part)) <= max(kept, target) + 1


def test_a_patient_whose_scan_was_renamed_keeps_the_part(make_data, make_entry):
    manifest = make_data(40)
    previous = assign_split(manifest, DEFAULT, None)
    renamed = make_manifest(
        entry.model_copy(update={"volume": f"{entry.patient}_20010101", "date": "20010101"})
        for entry in manifest.volumes
    )
    split = assign_split(renamed, DEFAULT, previous)
    people = {part: set(previous.patients(part)) for part in PARTS}
    assert {part: set(split.patients(part)) for part in PARTS} == people


def test_patients_of_any_naming_keep_their_part_when_renamed(make_entry):
    def data(volume):
        return make_manifest(
            make_entry(number, patient=f"p-{number}", volume=volume.format(number))
            for number in range(20)
        )

    previous = assign_split(data("scan {} of monday"), DEFAULT, None)
    split = assign_split(data("{}: tuesday"), SplitSettings(seed=9), previous)
    assert all(set(split.patients(part)) == set(previous.patients(part)) for part in PARTS)


def test_without_new_patients_the_previous_split_is_the_split(make_data):
    manifest = make_data(40)
    previous = assign_split(manifest, DEFAULT, None)
    other = SplitSettings(seed=9, test_fraction=0.5)
    assert assign_split(manifest, other, previous) == previous


def test_single_new_patients_go_where_they_are_missed(make_data, build):
    manifest, split = make_data(20), None
    for number in range(40):
        split = assign_split(manifest, DEFAULT, split)
        more = build([("CS", 100 * number)], first=1000 + number).volumes
        manifest = make_manifest([*manifest.volumes, *more])
    sizes = {part: len(split.part(part)) for part in PARTS}
    for part, fraction in fractions(DEFAULT).items():
        assert abs(sizes[part] - fraction * 59) <= 1


def test_all_volumes_of_a_patient_are_in_one_part(make_entry):
    manifest = make_manifest(
        make_entry(10 * number + scan, patient=f"P{number:02d}", volume=f"P{number:02d}_{scan}")
        for number in range(20)
        for scan in range(number % 3 + 1)
    )
    split = assign_split(manifest, DEFAULT, None)
    people = [{volume.split("_")[0] for volume in split.part(part)} for part in PARTS]
    assert sum(map(len, people)) == len(set.union(*people)) == 20


def test_tumour_sizes_are_shared_evenly(build):
    chance = random.Random(0)
    manifest = build([("CS", chance.randrange(10_000)) for _ in range(90)])
    thirds = sorted(entry.tumour_pixels for entry in manifest.volumes)[30::30]
    for seed in range(5):
        split = assign_split(manifest, SplitSettings(seed=seed), None)
        for part, size in (("validation", 13.5), ("test", 18)):
            found = Counter(
                sum(entry.tumour_pixels >= limit for limit in thirds)
                for entry in split.entries(part, manifest)
            )
            assert all(abs(found[third] - size / 3) <= 1.5 for third in range(3))


def test_sizes_are_milliliters_if_all_are_known(build):
    pixels = random.Random(1).sample(range(1, 10_000), 40)
    by_pixels = build([("CS", count) for count in pixels])
    voxels = [Geometry.of_affine(np.diag([count, 1, 1, 1])) for count in pixels]
    entries = [
        entry.model_copy(update={"tumour_pixels": 50, "geometry": voxel})
        for entry, voxel in zip(by_pixels.volumes, voxels, strict=True)
    ]
    expected = assign_split(by_pixels, DEFAULT, None)
    assert assign_split(make_manifest(entries), DEFAULT, None) == expected
    entries[0] = entries[0].model_copy(update={"geometry": None})
    assert assign_split(make_manifest(entries), DEFAULT, None) != expected


def test_sites_of_one_patient_are_spread_over_the_parts(make_entry):
    manifest = make_manifest(make_entry(number, site=f"{number:02d}") for number in range(60))
    split = assign_split(manifest, DEFAULT, None)
    assert [len(split.part(part)) for part in PARTS] == [42, 6, 12]


def test_the_seed_decides(make_data):
    manifest = make_data(60)
    settings = [SplitSettings(seed=seed) for seed in range(10)]
    splits = {assign_split(manifest, one, None).split_id for one in settings}
    assert len(splits) == 10


def test_a_known_split_stays_as_it_is(build):
    """Runs can be repeated only if another release gives the same split."""
    manifest = build([(site, number**2) for number, site in enumerate(["CS", "DU", "HT"] * 20)])
    assert assign_split(manifest, DEFAULT, None).split_id == "c32798562c86bd1c"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_patients(make_data, count):
    with pytest.raises(UserError, match=rf"{count} patients leave the .* part empty.*add patients"):
        assign_split(make_data(count), DEFAULT, None)


def test_a_part_whose_patients_all_left_needs_new_ones(make_data, make_entry):
    manifest = make_data(20)
    previous = assign_split(manifest, DEFAULT, None)
    left = make_manifest(e for e in manifest.volumes if e.patient not in previous.test)
    with pytest.raises(UserError, match="16 patients leave the test part empty"):
        assign_split(left, DEFAULT, previous)
    grown = make_manifest([*left.volumes, make_entry(1000, volume="new", patient="new")])
    assert assign_split(grown, DEFAULT, previous).test == {"new": ("new",)}


def test_two_parts_never_share_pixels(make_data):
    manifest = make_data(20, image_digest="the same image")
    with pytest.raises(UserError, match="images are in two parts"):
        assign_split(manifest, DEFAULT, None)


def test_report2020_holds_out_the_volumes_of_the_report(make_data, report_volumes):
    manifest = make_manifest([*make_data(40).volumes, *report_volumes])
    split = assign_split(manifest, SplitSettings(method="report2020"), None)
    assert split.part("test") == REPORT2020_VOLUMES
    assert len(split.validation) == 4
    assert len(split.train) == 36


def test_report2020_names_the_volumes_that_are_lacking(make_data, report_volumes):
    manifest = make_manifest([*make_data(40).volumes, *report_volumes[2:]])
    lacking = "lacks 2 of them: TCGA_CS_5395_19981004, TCGA_DU_5855_19951217; ingest the whole"
    with pytest.raises(UserError, match=lacking):
        assign_split(manifest, SplitSettings(method="report2020"), None)


def test_the_report_has_fifteen_volumes():
    assert len(set(REPORT2020_VOLUMES)) == 15


def test_describes_each_part_in_a_line(make_data):
    manifest = make_data(60)
    lines = describe_split(assign_split(manifest, DEFAULT, None), manifest)
    assert lines[2].startswith("test: 12 patients (CS ")
    assert lines[2].endswith("% with tumour")


@pytest.fixture
def report_volumes(make_entry):
    return [
        make_entry(5000 + number, patient=volume[:-9], volume=volume, site=volume[5:7])
        for number, volume in enumerate(REPORT2020_VOLUMES)
    ]


def fractions(options):
    validation, test = options.validation_fraction, options.test_fraction
    return {"train": 1 - validation - test, "validation": validation, "test": test}


def part_of(split):
    return {volume: part for part in PARTS for volume in split.part(part)}


@given(
    pairs=st.lists(st.tuples(sites, st.integers(1, 5000)), min_size=10, max_size=120),
    folds=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_every_patient_is_tested_in_one_fold_and_folds_differ_by_one_at_most(
    build, pairs, folds, seed
):
    manifest = build(pairs)
    made = assign_folds(manifest, FoldSettings(folds=folds, seed=seed))
    tested = [patient for split in made for patient in split.patients("test")]
    assert sorted(tested) == sorted({entry.patient for entry in manifest.volumes})
    sizes = [len(split.patients("test")) for split in made]
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= 1
    for split in made:
        assert {len(split.part(part)) > 0 for part in PARTS} == {True}


def test_a_site_and_a_third_by_tumour_are_shared_by_all_folds(build):
    manifest = build([(site, pixels) for site in ("CS", "HT") for pixels in range(1, 31)])
    for split in assign_folds(manifest, FoldSettings(folds=5)):
        tested = split.entries("test", manifest)
        assert Counter(entry.site for entry in tested) == {"CS": 6, "HT": 6}
        thirds = Counter((entry.tumour_pixels - 1) // 10 for entry in tested)
        assert min(thirds.values()) >= 3


def test_validation_patients_of_a_fold_are_as_many_as_asked(build):
    manifest = build([("CS", pixels) for pixels in range(1, 41)])
    made = assign_folds(manifest, FoldSettings(folds=4, validation_fraction=0.2))
    assert [len(split.part("validation")) for split in made] == [8] * 4


def test_folds_do_not_depend_on_the_order_of_volumes_but_on_the_seed(build):
    manifest = build([("CS", pixels) for pixels in range(1, 31)])
    turned = make_manifest(reversed(manifest.volumes))
    ids = [
        [one.split_id for one in assign_folds(data, FoldSettings())] for data in (manifest, turned)
    ]
    assert ids[0] == ids[1]
    assert [one.split_id for one in assign_folds(manifest, FoldSettings(seed=1))] != ids[0]


def test_a_fold_without_tumour_is_refused_and_nobody_changes_folds_for_it(build):
    manifest = build([("CS", 100), ("CS", 90), ("CS", 80), *[("CS", 0)] * 9])
    with pytest.raises(UserError, match="the test part would have no patient with tumour"):
        assign_folds(manifest, FoldSettings(folds=6))


def test_members_of_an_ensemble_need_a_patient_each(build):
    data = build([("CS", 100)] * 6)
    base = assign_split(data, DEFAULT, None)
    outside = 6 - len(base.part("test"))
    assert len(assign_members(data, FoldSettings(folds=outside), base)) == outside
    with pytest.raises(UserError, match=f"{outside} patients leave folds of {outside + 1} empty"):
        assign_members(data, FoldSettings(folds=outside + 1), base)
