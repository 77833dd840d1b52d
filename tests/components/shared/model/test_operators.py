import pytest
import torch

from components.shared.model import operators
from components.shared.model.operators import is_allowed_target

# texts that operators take: ways to round, to pad, to reduce, an equation
WORDS = {"approximate", "rounding_mode", "padding", "mode", "reduce", "indexing", "equation", "ord"}


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.conv2d.padding",
        "torch.ops.aten.relu_.default",
        "torch.ops.aten.where.ScalarSelf",
        "_operator.mul",
    ],
)
def test_operators_of_networks_are_allowed(target):
    assert is_allowed_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "os.system",
        "torch.os.system",
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.conv2d",
        "torch.ops.aten.conv2d.default.__call__",
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.conv2d.default\n",
        "torch.ops.prim.add.default",
        "torch.ops.higher_order.cond",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.pow",
        "#triton:x",
    ],
)
def test_all_else_is_refused(target):
    assert not is_allowed_target(target)


@pytest.mark.parametrize("name", sorted(operators._OPERATORS))
def test_an_operator_of_the_list_exists_and_takes_no_text_but_words(name):
    packet = getattr(torch.ops.aten, name)
    signatures = [
        {argument.name: str(argument.type) for argument in overload._schema.arguments}
        for overload in (getattr(packet, name) for name in packet.overloads())
    ]
    # others are Python's own, such as the sum of two texts
    on_tensors = [kinds for kinds in signatures if any("Tensor" in kind for kind in kinds.values())]
    assert signatures
    texts = {argument for kinds in on_tensors for argument in kinds if "str" in kinds[argument]}
    assert texts <= WORDS
