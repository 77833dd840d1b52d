import pytest
import sympy
import torch  # sympy's functions of sizes are torch's
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from components.shared.model.expressions import is_size_expression

symbols = st.integers(0, 99).map(lambda n: sympy.Symbol(f"s{n}", positive=True, integer=True))
integers = st.integers(-1000, 1000).map(sympy.Integer)
sizes = st.recursive(
    symbols | integers,
    lambda inner: st.one_of(
        st.builds(sympy.Add, inner, inner, evaluate=st.just(False)),
        st.builds(sympy.Mul, inner, inner, evaluate=st.just(False)),
        st.builds(FloorDiv, symbols, st.integers(2, 9).map(sympy.Integer)),
        st.builds(Mod, symbols, st.integers(2, 9).map(sympy.Integer)),
        st.builds(Max, symbols, symbols),
        st.builds(Min, symbols, symbols),
    ),
    max_leaves=6,
)


@given(sizes)
def test_what_torch_writes_is_accepted(size):
    assert is_size_expression(sympy.printing.repr.srepr(size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0",
        "#",
        "Mul(#, #)",
        "1",
        "__import__('os').system('x')",
        "Symbol('s0').__class__",
        "Symbol('s0', positive=True, integer=True)()",
        "Symbol('__import__')",
        "Symbol('s0', commutative=False)",
        "Symbol('s9999999')",
        "Symbol('u0', integer=True)",
        "Integer(Integer(2))",
        "Integer(10**9)",
        "Integer(1234567890123456789)",
        "Pow(Integer(9), Integer(9))",
        "Mul(Integer(1)",
        "Mul(Integer(1),Integer(1))",
        "Mul()",
        "xMul(Integer(1), Integer(1))",
        "Mul(Integer(1), Integer(1)).func",
        "Lambda(Symbol('s0'), Symbol('s0'))",
        "Integer(1)\nInteger(1)",
        "Integer(1) ",
        "Integer(\N{ARABIC-INDIC DIGIT THREE})",
        "Add(" * 500 + ")" * 500,
        "Add(" * 11 + "Integer(1)" + ")" * 11,
        f"Add({', '.join(['Integer(1)'] * 17)})",
        f"Add({', '.join(['Integer(100000000)'] * 60)})",
    ],
)
def test_anything_else_is_refused(text):
    assert not is_size_expression(text)


@given(sizes, st.data())
def test_a_character_more_is_refused_or_only_another_number(size, data):
    text = sympy.printing.repr.srepr(size)
    place = data.draw(st.integers(0, len(text)))
    more = data.draw(st.characters(exclude_characters="0123456789-"))
    assert not is_size_expression(text[:place] + more + text[place:])


def test_torch_is_the_version_that_was_read():
    assert torch.__version__.startswith("2.15."), "read torch/_export/serde/serialize.py again"
