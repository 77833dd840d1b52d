import json

import pytest

from components.shared.dataset.manifest import make_manifest, short_digest
from components.shared.dataset.split import (
    PARTS,
    Split,
    check_split,
    fetch_split,
    make_split,
    parse_split,
    read_split,
    split_key,
)
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore


@pytest.fixture
def data(make_entry):
    return make_manifest(make_entry(number, volume=name) for number, name in enumerate("abcdef"))


@pytest.fixture
def split(data):
    return divide(data, "dba", "c", "fe")


def divide(data, *parts):
    """Puts the volumes of these names into train, validation and test."""
    known = data.by_name()
    return make_split(
        {part: [known[name] for name in names] for part, names in zip(PARTS, parts, strict=True)}
    )


def test_equal_parts_have_an_equal_id(split, data):
    other = divide(data, "abd", "c", "ef")
    assert other == split
    assert other.split_id == split.split_id
    assert other.to_json() == split.to_json()


def test_holds_patients_with_their_volumes(split):
    assert split.patients("test") == {"TCGA_CS_0004": ("e",), "TCGA_CS_0005": ("f",)}
    assert json.loads(split.to_json())["validation"] == {"TCGA_CS_0002": ["c"]}


def test_the_id_is_that_of_the_volumes_by_part(split):
    volumes = b'{"test":["e","f"],"train":["a","b","d"],"validation":["c"]}'
    assert split.split_id == short_digest(volumes)


def test_gives_the_entries_of_a_part(split, data):
    assert [entry.volume for entry in split.entries("test", data)] == ["e", "f"]


def test_a_good_split_passes(split, data):
    check_split(split, data)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("abcd", "", "ef"), "1 parts are empty: validation"),
        (("abcd", "d", "ef"), "1 volumes are named twice: d"),
        (("ab", "c", "ef"), "1 volumes are in no part: d"),
    ],
)
def test_refuses_parts_that_do_not_share_the_data(data, parts, message):
    with pytest.raises(UserError, match=f"split refused: {message}"):
        check_split(divide(data, *parts), data)


def test_refuses_volumes_that_the_data_set_lacks_or_has_of_another_patient(split, data):
    strange = split.model_copy(update={"train": {**split.train, "TCGA_CS_0009": ("x",)}})
    with pytest.raises(UserError, match="1 volumes are not in the data set: x"):
        check_split(strange, data)
    swapped = split.model_copy(update={"validation": {"TCGA_CS_0009": ("c",)}})
    with pytest.raises(UserError, match="1 volumes are another patient's: c"):
        check_split(swapped, data)


@pytest.mark.parametrize(
    ("field", "message"),
    [("patient", "1 patients are in two parts: same"), ("image_digest", "1 images are in two")],
)
def test_refuses_what_two_parts_share(data, field, message):
    entries = [
        entry.model_copy(update={field: "same"} if entry.volume in "af" else {})
        for entry in data.volumes
    ]
    shared = make_manifest(entries)
    with pytest.raises(UserError, match=message):
        check_split(divide(shared, "dba", "c", "fe"), shared)


def test_one_part_may_hold_a_patient_twice(data):
    entries = [
        entry.model_copy(update={"patient": "same"} if entry.volume in "ab" else {})
        for entry in data.volumes
    ]
    twice = make_manifest(entries)
    split = divide(twice, "dba", "c", "fe")
    check_split(split, twice)
    assert split.patients("train")["same"] == ("a", "b")


def test_reads_a_file_and_checks_it_again(split, data, tmp_path, make_entry):
    (tmp_path / "split").write_bytes(split.to_json())
    assert read_split(tmp_path / "split", split.split_id, data) == split
    with pytest.raises(UserError, match=rf"is split {split.split_id}, not 0123"):
        read_split(tmp_path / "split", "0123", data)
    grown = make_manifest([*data.volumes, make_entry(9, volume="g")])
    with pytest.raises(UserError, match="in no part: g"):
        read_split(tmp_path / "split", split.split_id, grown)


def test_reads_a_split_of_the_store(split, tmp_path):
    store = FolderStore(tmp_path)
    with pytest.raises(UserError, match=r"has no split '0123'; it has: none"):
        fetch_split(store, "0123")
    store.write(split_key(split.split_id), split.to_json())
    assert fetch_split(store, split.split_id) == split
    with pytest.raises(UserError, match=rf"has no split '0123'; it has: {split.split_id}"):
        fetch_split(store, "0123")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"train": []}', b'{"train": ["a"], "validation": [], "test": []}', b"\xff"],
)
def test_refuses_a_file_of_another_form(text):
    with pytest.raises(UserError, match=r'here is not a split; the form is {"train"'):
        parse_split(text, "here")


def test_cannot_be_changed(split):
    with pytest.raises(ValueError, match="frozen"):
        split.train = ()
    assert isinstance(split, Split)
