"""What an exported segmenter may hold: torch's schema, narrowed.

The classes and fields are those of torch 2.15's `torch/_export/serde/schema.py` (version 8.20)
that exported networks use, under their names there. A field that is not here is refused, every
text has a rule, and every number a bound, because of what torch does with them (places in
`torch/_export/serde/serialize.py` unless said otherwise):

- `expr_str`: `_parse_sym_expr` gives it to `sympy.sympify`, which evaluates Python. Allowed is
  the grammar of `expressions`.
- `Node.target`: `deserialize_operator` follows any dotted path below `torch`, `operator` and
  `math` (`torch.os.system`) or asks an extension's handler (`#...`). Allowed are operators by
  name, see `operators`; so no subgraphs (`as_graph`, higher-order operators) and no operators
  as arguments (`as_operator`).
- names of values become variables in source that `torch/fx/graph.py` writes and executes, names
  of weights stand in it in quotation marks. Allowed are identifiers and dotted words.
- `as_string`: an argument of an operator, such as a rounding mode; short words.
- `as_custom_obj`, `custom_obj_values`, `token`, `verifiers`: names of classes. Refused but for the
  verifier that `torch.export` names.
- `Device`: the CPU; `move_to_device_pass` moves a program.
- symbols of `range_constraints`: torch counts up to the number in the name of an unbacked one.

Some fields are notes of the export, or can only say one thing. What they hold is forgotten, so
that torch never sees it: `metadata` (`deserialize_metadata` resolves names below `torch`, and
reads JSON), `guards_code` (`torch/export/_unlift.py` executes it; it says for which sizes
torch's guesses about memory layout hold, not which sizes the operators take), and
`module_call_graph`, whose `in_spec` and `out_spec` `torch/utils/_pytree.py` reads (it imports the
modules of enumerations by name). One tensor in and one out is all that a segmenter has.
"""

import json
import keyword
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from components.shared.config import Record
from components.shared.model.expressions import is_size_expression
from components.shared.model.operators import is_allowed_target

SCHEMA_VERSION = (8, 20)  # of torch 2.15

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}  # by torch's ScalarType


def _tree(kind: str | None, context: str | None, *children: object) -> dict[str, object]:
    return {"type": kind, "context": context, "children_spec": children}


_LEAF = _tree(None, None)
_ARGUMENTS = _tree("builtins.tuple", "null", _LEAF)
_KEYWORDS = _tree("builtins.dict", "[]")
_CALL_GRAPH: list[dict[str, object]] = [
    {
        "fqn": "",
        "signature": {
            "inputs": [],
            "outputs": [],
            "in_spec": json.dumps([1, _tree("builtins.tuple", "null", _ARGUMENTS, _KEYWORDS)]),
            "out_spec": json.dumps([1, _LEAF]),
            "forward_arg_names": ["volume"],
        },
    }
]


def _expression(text: str) -> str:
    if not is_size_expression(text):
        raise ValueError("is no arithmetic of sizes")
    return text


def _target(text: str) -> str:
    if not is_allowed_target(text):
        raise ValueError("is not in the list of components/shared/model/operators.py")
    return text


def _name(text: str) -> str:
    if keyword.iskeyword(text):
        raise ValueError("is a word of Python, no name")
    return text


Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Size = Annotated[int, Field(ge=0, lt=2**48)]
Expression = Annotated[str, AfterValidator(_expression)]
Target = Annotated[str, AfterValidator(_target)]
Name = Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,299}\z"), AfterValidator(_name)]
ArgumentName = Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,99}\z")]
StateName = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_]{1,100}(?:\.[A-Za-z0-9_]{1,100}){0,30}\z")]
Symbol = Annotated[str, Field(pattern=r"\As[0-9]{1,6}\z")]
Word = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_ ,.>-]{0,100}\z")]
Number = float | Literal["Infinity", "-Infinity", "NaN"]
ScalarType = Annotated[int, Field(ge=0, le=35)]
Enumerated = Annotated[int, Field(ge=0, le=7)]  # torch's Layout and MemoryFormat
Nothing = Annotated[dict[str, str], Field(max_length=0)]


class Part(Record):
    """A piece of the program, without conversions: `"3"` is no integer."""

    model_config = ConfigDict(strict=True)


class Choice(Part):
    """Exactly one of its fields, as torch's unions."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [getattr(self, key) is None for key in self.model_fields_set] != [False]:
            raise ValueError("must have exactly one key, with a value")
        return self


class Device(Part):
    """Where a tensor lives."""

    type: Literal["cpu"]
    index: Literal[0] | None = None


class SymExprHint(Choice):
    """What a size was in the example."""

    as_int: Integer | None = None


class SymExpr(Part):
    """A size as arithmetic of free sizes."""

    expr_str: Expression
    hint: SymExprHint | None = None


class SymInt(Choice):
    """A size, fixed or free."""

    as_expr: SymExpr | None = None
    as_int: Integer | None = None


class FixedSize(Part):
    """A size that is not free: all that a stored tensor has."""

    as_int: Size


class TensorMeta(Part):
    """Form of a tensor that an operator gives."""

    dtype: ScalarType
    sizes: Annotated[list[SymInt], Field(max_length=12)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[SymInt], Field(max_length=12)]
    storage_offset: SymInt
    layout: Literal[7]  # strided


class StoredTensorMeta(TensorMeta):
    """Form of a tensor that the archive holds."""

    # mypy: a list of fewer kinds is no list of more; a frozen record is never written to
    sizes: Annotated[list[FixedSize], Field(max_length=12)]  # type: ignore[assignment]
    strides: Annotated[list[FixedSize], Field(max_length=12)]  # type: ignore[assignment]
    storage_offset: FixedSize  # type: ignore[assignment]

    def fits(self, size_bytes: int) -> bool:
        """Whether the tensor lies in a file of this size and is no larger than it."""
        width = _BYTES.get(self.dtype, 0)
        if not width or size_bytes % width or len(self.sizes) != len(self.strides):
            return False
        held, elements, last = size_bytes // width, 1, self.storage_offset.as_int
        for size, stride in zip(self.sizes, self.strides, strict=True):
            elements *= size.as_int
            last += max(size.as_int - 1, 0) * stride.as_int
        return elements == 0 or (elements <= held and last < held)


class TensorArgument(Part):
    """A tensor by its name."""

    name: Name


class OptionalTensorArgument(Choice):
    """A tensor or none."""

    as_tensor: TensorArgument | None = None
    as_none: bool | None = None


class SymIntArgument(Choice):
    """A size, by its name or as a number."""

    as_name: Name | None = None
    as_int: Integer | None = None


class SymFloatArgument(Choice):
    """A number, by its name or as one."""

    as_name: Name | None = None
    as_float: Number | None = None


class Argument(Choice):
    """What an operator takes or gives."""

    as_none: bool | None = None
    as_tensor: TensorArgument | None = None
    as_tensors: list[TensorArgument] | None = None
    as_int: Integer | None = None
    as_ints: list[Integer] | None = None
    as_float: Number | None = None
    as_floats: list[Number] | None = None
    as_string: Word | None = None
    as_sym_int: SymIntArgument | None = None
    as_sym_ints: list[SymIntArgument] | None = None
    as_sym_float: SymFloatArgument | None = None
    as_scalar_type: ScalarType | None = None
    as_memory_format: Enumerated | None = None
    as_layout: Enumerated | None = None
    as_device: Device | None = None
    as_bool: bool | None = None
    as_bools: list[bool] | None = None
    as_optional_tensor: OptionalTensorArgument | None = None
    as_optional_tensors: list[OptionalTensorArgument] | None = None


class NamedArgument(Part):
    """An argument by its name in the operator's signature."""

    name: ArgumentName
    arg: Argument
    kind: Literal[0, 1, 2] | None = None


def _forget(_: object) -> dict[str, str]:
    return {}


class Node(Part):
    """One call of an operator."""

    target: Target
    inputs: Annotated[list[NamedArgument], Field(max_length=64)]
    outputs: Annotated[list[Argument], Field(max_length=1_000)]
    metadata: Annotated[dict[str, str], AfterValidator(_forget)]
    is_hop_single_tensor_return: None = None
    name: Name | None = None


class Graph(Part):
    """The calls, in order, and the form of every value."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[Name, TensorMeta]
    sym_int_values: dict[Name, SymInt]
    sym_bool_values: Nothing
    is_single_tensor_return: Literal[False] = False
    custom_obj_values: Nothing = Field(default_factory=dict)
    sym_float_values: Nothing = Field(default_factory=dict)


class UserSpec(Part):
    """The volume, or the probability."""

    arg: Argument


class InputToParameterSpec(Part):
    """A weight."""

    arg: TensorArgument
    parameter_name: StateName


class InputToBufferSpec(Part):
    """A buffer, such as a running mean."""

    arg: TensorArgument
    buffer_name: StateName
    persistent: bool


class InputToTensorConstantSpec(Part):
    """A tensor that was made while the network was traced."""

    arg: TensorArgument
    tensor_constant_name: StateName


class InputSpec(Choice):
    """What an input of the graph is."""

    user_input: UserSpec | None = None
    parameter: InputToParameterSpec | None = None
    buffer: InputToBufferSpec | None = None
    tensor_constant: InputToTensorConstantSpec | None = None


class OutputSpec(Choice):
    """What an output of the graph is."""

    user_output: UserSpec | None = None


class GraphSignature(Part):
    """What goes in and out: weights, one volume, one probability."""

    input_specs: list[InputSpec]
    output_specs: Annotated[list[OutputSpec], Field(min_length=1, max_length=1)]

    @model_validator(mode="after")
    def _one_volume(self) -> Self:
        if sum(spec.user_input is not None for spec in self.input_specs) != 1:
            raise ValueError("must have one input beside the weights")
        return self


class RangeConstraint(Part):
    """Least and greatest value of a free size."""

    min_val: Integer | None
    max_val: Integer | None


def _one_in_one_out(_: object) -> list[dict[str, object]]:
    return _CALL_GRAPH


class GraphModule(Part):
    """Graph and signature."""

    graph: Graph
    signature: GraphSignature
    module_call_graph: Annotated[list[dict[str, Any]], AfterValidator(_one_in_one_out)]
    metadata: Annotated[dict[str, str], AfterValidator(_forget)] = Field(default_factory=dict)
    treespec_namedtuple_fields: Nothing = Field(default_factory=dict)


class SchemaVersion(Part):
    """Of torch's schema."""

    major: int
    minor: int


def _no_guards(_: object) -> list[str]:
    return []


class ExportedProgram(Part):
    """The whole program without its weights."""

    graph_module: GraphModule
    opset_version: dict[Literal["aten"], Integer]
    range_constraints: dict[Symbol, RangeConstraint]
    schema_version: SchemaVersion
    verifiers: Annotated[list[Literal["TRAINING"]], Field(min_length=1, max_length=1)]
    torch_version: Annotated[str, Field(pattern=r"\A[A-Za-z0-9.+_-]{1,60}\z")]
    guards_code: Annotated[list[str], AfterValidator(_no_guards)] = Field(default_factory=list)


class PayloadMeta(Part):
    """A stored tensor."""

    path_name: Annotated[str, Field(pattern=r"\A(?:weight|tensor)_[0-9]{1,6}\z")]
    is_param: bool
    use_pickle: Literal[False]  # `torch/export/pt2_archive/_package.py` unpickles the others
    tensor_meta: StoredTensorMeta


class PayloadConfig(Part):
    """The stored tensors by their names."""

    config: dict[StateName, PayloadMeta]
