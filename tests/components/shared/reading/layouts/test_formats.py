"""The formats that layouts may name."""

from typing import get_args

import pytest

from components.shared.reading.layouts.formats import ImageFormat, image_format
from components.shared.reading.layouts.settings import LayoutSettings

NAMES = get_args(LayoutSettings.model_fields["format"].annotation)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_a_module_with_all_functions(name):
    module = image_format(name)
    functions = [each for each in vars(ImageFormat) if each[0] != "_" and each.islower()]
    assert len(functions) == 3
    assert all(callable(getattr(module, each)) for each in functions)
    assert module.MASK_SUFFIX.startswith(".")
    assert isinstance(module.IS_SERIES, bool)
