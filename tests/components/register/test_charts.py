import pytest

from components.register.charts import paired_differences
from components.shared.scoring.comparison import Comparison


@pytest.fixture
def comparison():
    pairs = {"one": (0.9, 0.8), "two": (0.5, 0.7), "three": (0.6, 0.6)}
    return Comparison(
        candidate=0.667,
        reference=0.7,
        difference=-0.033,
        standard_error=0.088,
        confidence=0.95,
        low=-0.27,
        high=0.21,
        groups=(),
        pairs=pairs,
    )


def points(axes):
    return [tuple(map(float, line.get_ydata())) for line in axes.get_lines()]


def test_a_line_a_patient_goes_from_the_champion_to_the_candidate(comparison):
    lines = paired_differences(comparison, "version 3", 0.03).axes[0]
    assert points(lines) == [(0.8, 0.9), (0.7, 0.5), (0.6, 0.6), (0.7, 0.667)]
    assert [label.get_text() for label in lines.get_xticklabels()] == ["version 3", "candidate"]
    up, down, level, mean = [line.get_color() for line in lines.get_lines()]
    assert up == level != down
    assert mean not in (up, down)


def test_the_mean_stands_between_its_bounds_beside_the_margin(comparison):
    means = paired_differences(comparison, "version 3", 0.03).axes[1]
    drawn = [tuple(map(float, line.get_xdata())) for line in means.get_lines()]
    assert (-0.27, 0.21) in drawn
    assert (-0.033,) in drawn
    assert (-0.03, -0.03) in drawn
    assert {round(one[0], 3) for one in drawn[:3]} == {0.1, -0.2, 0.0}
