import pytest

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.split.settings import SplitSettings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: random", "split.method='random'.*'stratified' or 'report2020'"),
        ("test_fraction: 0", "split.test_fraction=0.*greater than 0"),
        ("test_fraction: 1.5", "split.test_fraction=1.5.*less than 1"),
        ("{test_fraction: 0.6, validation_fraction: 0.4}", "leave nothing for training"),
        ("{method: report2020, previous: abc}", "cannot follow a previous split"),
        ("fraction: 0.1", "split.fraction is not a setting.*Settings of split: method, seed"),
    ],
)
def test_reports_what_is_wrong(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(SplitSettings, text, "split")


def test_follows_a_split_unless_another_is_set_or_the_method_follows_none():
    assert SplitSettings().following("abc").previous == "abc"
    assert SplitSettings().following("") == SplitSettings()
    assert SplitSettings(previous="mine").following("abc").previous == "mine"
    report = SplitSettings(method="report2020")
    assert report.following("abc") == report
