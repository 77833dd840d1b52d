"""The arithmetic of sizes that an exported program may hold.

torch writes a size that is free, such as the number of slices, as text in sympy's `srepr`
notation, and reads it by `sympy.sympify`, which evaluates any Python.
"""

import re

_FUNCTIONS = ("Add", "FloorDiv", "Max", "Min", "Mod", "Mul")  # no power: 9**9**9 never ends
_LONGEST = 1_000  # characters; the longest that exported networks have is a third of it
_DEEPEST = 10  # calls inside calls
_FLAGS = r"(?:, (?:positive|nonnegative|integer)=True){0,3}"
_ATOM = re.compile(rf"Symbol\('s[0-9]{{1,6}}'{_FLAGS}\)|Integer\(-?[0-9]{{1,18}}\)")
_CALL = re.compile(rf"(?:{'|'.join(_FUNCTIONS)})\(#(?:, #){{0,15}}\)")


def is_size_expression(text: str) -> bool:
    """Whether a text is made of integers, free sizes and the allowed functions, and nothing else.

    Works from the inside out: atoms become `#`, then calls whose arguments are all `#`; what
    is an expression ends as one `#`.
    """
    if len(text) > _LONGEST or "#" in text:
        return False
    reduced = _ATOM.sub("#", text)
    for _ in range(_DEEPEST):
        reduced = _CALL.sub("#", reduced)
    return reduced == "#"
