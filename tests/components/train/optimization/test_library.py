import pytest
from torch import nn, optim

from components.shared.errors import UserError
from components.train.optimization.library import classes_of, find_class, make

PLACE = "train.optimizer.method"


def find(name):
    known = classes_of(optim, optim.Optimizer)
    return find_class(name, optim.Optimizer, known, "the classes of torch.optim", PLACE)


def test_the_base_class_is_none_of_its_subclasses():
    known = classes_of(optim, optim.Optimizer)
    assert known["SGD"] is optim.SGD
    assert "Optimizer" not in known


@pytest.mark.parametrize("name", ["RAdam", "torch.optim:RAdam"])
def test_a_class_is_found_by_its_name_or_its_module(name):
    assert find(name) is optim.RAdam


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SGB", r"method=SGB is not known \(nearest: SGD.*there are the classes of torch.optim"),
        ("no_such_package:Adam", "cannot be imported .*install its package"),
        ("torch.optim:NoSuch", "cannot be imported"),
        ("os:system", "is not a subclass of torch.optim.*Optimizer"),
        ("torch.nn:Linear", "is not a subclass"),
    ],
)
def test_everything_else_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        find(name)


def test_a_class_is_made_with_the_options_of_a_recipe():
    made = make(nn.Linear, 3, fixed={"out_features": 2}, options={"bias": False}, place=PLACE)
    assert (made.in_features, made.out_features, made.bias) == (3, 2, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_features": 3}, "out_features is no option; the training sets it"),
        ({"bais": False}, r"does not accept bais \(nearest: bias\); its options: bias, device"),
        ({"device": "nowhere"}, "device.*nowhere"),
    ],
)
def test_wrong_options_are_one_message(options, message):
    with pytest.raises(UserError, match=message):
        make(nn.Linear, 3, fixed={"out_features": 2}, options=options, place=PLACE)
