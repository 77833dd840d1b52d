import pytest

from components.profile.attributes import describe_attributes
from components.shared.dataset.manifest import make_manifest
from components.shared.reading.tcga import ATTRIBUTES


@pytest.fixture
def describe(make_entry):
    """Sums up one column that holds the given cells, a patient each."""

    def describe(column, cells):
        data = make_manifest(
            make_entry(number, attributes={column: cell}) for number, cell in enumerate(cells)
        )
        (attribute,) = describe_attributes(data)
        return attribute

    return describe


def test_counts_codes_in_their_order(describe):
    found = describe("laterality", [3.0, 1.0, None, 3.0, 10.0])
    assert (found.kind, found.filled, found.empty) == ("codes", 4, 1)
    assert list(found.counts.items()) == [("1", 1), ("3", 2), ("10", 1)]
    assert found.meaning == "side of the brain (code)"


def test_sums_up_numbers(describe):
    found = describe("age_at_initial_pathologic", [20.0 + age for age in range(51)])
    assert found.kind == "numbers"
    assert found.quantiles.median == 45
    assert found.counts == {"20": 10, "30": 10, "40": 10, "50": 10, "60": 11}


def test_counts_the_most_frequent_texts(describe):
    found = describe("scanner", [f"type {n}" for n in range(40)] + ["type 7", 3.0])
    assert found.kind == "text"
    assert len(found.counts) == 12
    assert next(iter(found.counts.items())) == ("type 7", 2)
    assert found.meaning == ""


def test_a_column_may_be_empty(describe):
    found = describe("race", [None, None])
    assert (found.filled, found.empty, found.counts, found.quantiles) == (0, 2, {}, None)


def test_a_patient_counts_once(make_entry):
    data = make_manifest(
        make_entry(0, patient="P", volume=f"V{scan}", attributes={"gender": 1.0})
        for scan in range(3)
    )
    assert describe_attributes(data)[0].counts == {"1": 1}


def test_the_public_sets_columns_come_first_and_have_a_meaning(make_entry):
    attributes = dict.fromkeys(["aaa", *reversed(ATTRIBUTES)])
    found = describe_attributes(make_manifest([make_entry(0, attributes=attributes)]))
    assert [attribute.column for attribute in found] == [*ATTRIBUTES, "aaa"]
    assert all(ATTRIBUTES.values())
