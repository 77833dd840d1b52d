from components.profile.quantiles import quantiles


def test_names_the_five_numbers():
    found = quantiles([5, 1, 2, 4, 3])
    assert found.model_dump() == {
        "minimum": 1,
        "lower_quartile": 2,
        "median": 3,
        "upper_quartile": 4,
        "maximum": 5,
    }


def test_nothing_has_none():
    assert quantiles([]) is None
