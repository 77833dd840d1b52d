import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.shared.model.exported_graph import Argument, ExportedProgram, StoredTensorMeta

PROGRAM = "model/models/model.json"
LONGS, BYTES = 5, 1  # of torch's ScalarType


def stored(sizes, strides, offset=0, dtype=LONGS):
    return StoredTensorMeta.model_validate(
        {
            "dtype": dtype,
            "sizes": [{"as_int": size} for size in sizes],
            "requires_grad": False,
            "device": {"type": "cpu", "index": None},
            "strides": [{"as_int": stride} for stride in strides],
            "storage_offset": {"as_int": offset},
            "layout": 7,
        }
    )


@given(st.lists(st.integers(0, 5), max_size=4))
def test_a_plain_tensor_fits_in_its_own_size_and_in_no_smaller_one(sizes):
    strides, count = [], 1
    for size in reversed(sizes):
        strides.insert(0, count)
        count *= size
    tensor = stored(sizes, [abs(stride) for stride in strides])
    assert tensor.fits(8 * count)
    assert count == 0 or not tensor.fits(8 * (count - 1))


@pytest.mark.parametrize(
    ("tensor", "size_bytes"),
    [
        (stored([2**40], [0]), 8),
        (stored([2], [1], offset=1), 16),
        (stored([2, 2], [1, 5]), 32),
        (stored([1], [1]), 9),
        (stored([1], [1, 1]), 8),
        (stored([1], [1], dtype=0), 8),
        (stored([1], [1], dtype=35), 8),
    ],
    ids=["repeated", "offset", "strides", "rest", "dimensions", "unknown type", "uint64"],
)
def test_a_tensor_that_is_larger_than_its_file_is_told(tensor, size_bytes):
    assert not tensor.fits(size_bytes)


def test_a_transposed_tensor_fits():
    assert stored([2, 3], [1, 2], dtype=BYTES).fits(6)


@pytest.mark.parametrize(
    "argument",
    [
        {},
        {"as_int": 1, "as_bool": True},
        {"as_int": None},
        {"as_int": "1"},
        {"as_int": True},
        {"as_int": 2**63},
        {"as_graph": {}},
        {"as_operator": "torch.load"},
        {"as_custom_obj": {}},
        {"as_string": "../x"},
        {"as_string": "a" * 101},
        {"as_device": {"type": "cuda"}},
        {"as_tensor": {"name": "x y"}},
        {"as_tensor": {"name": "import"}},
        {"as_tensors": ()},
        {"as_string_to_argument": {}},
    ],
)
def test_an_argument_is_one_thing_of_those_that_operators_take(argument):
    with pytest.raises(ValidationError):
        Argument.model_validate(argument)


def test_an_infinite_number_survives():
    found = Argument.model_validate({"as_float": "-Infinity"})
    assert found.model_dump(exclude_unset=True) == {"as_float": "-Infinity"}


def graph(program):
    return program["graph_module"]["graph"]


@pytest.mark.parametrize(
    "change",
    [
        lambda program: program.update(more=1),
        lambda program: program.update(verifiers=[]),
        lambda program: program.update(verifiers=["ATEN"]),
        lambda program: program["range_constraints"].update(u999999=None),
        lambda program: program["opset_version"].update(custom=1),
        lambda program: graph(program)["custom_obj_values"].update(x={"name": "x"}),
        lambda program: graph(program)["nodes"][0].update(target="torch.load"),
        lambda program: graph(program)["nodes"][0]["inputs"][0].update(name="x=1"),
        lambda program: graph(program)["tensor_values"].update({"x;y": None}),
        lambda program: program["graph_module"]["signature"]["output_specs"].clear(),
        lambda program: program["graph_module"]["signature"]["input_specs"].pop(),
        lambda program: program["graph_module"]["treespec_namedtuple_fields"].update(x={}),
    ],
)
def test_a_program_with_anything_else_is_refused(small_members, change):
    program = json.loads(small_members[PROGRAM])
    ExportedProgram.model_validate(program)
    change(program)
    with pytest.raises(ValidationError):
        ExportedProgram.model_validate(program)


def test_notes_of_the_export_are_forgotten_and_the_rest_is_kept(small_members):
    program = json.loads(small_members[PROGRAM])
    kept = ExportedProgram.model_validate(program).model_dump(exclude_unset=True)
    assert program["guards_code"]
    program["guards_code"] = []
    for node in graph(program)["nodes"]:
        node["metadata"] = {}
    entries = program["graph_module"].pop("module_call_graph")
    (only,) = kept["graph_module"].pop("module_call_graph")
    assert only == entries[0]
    assert kept == program
