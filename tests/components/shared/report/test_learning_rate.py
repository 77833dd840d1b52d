import pytest

from components.shared.report.learning_rate import (
    LearningRateSearch,
    Suggestion,
    learning_rate_curve,
    search_blocks,
)
from components.shared.report.page import Figures, Notice, Picture

RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SUGGESTION = Suggestion(
    learning_rate=1e-3, valley=(1e-4, 1e-2), valley_losses=(2.0, 0.7), steepest=5e-3
)


def search(suggestion):
    return LearningRateSearch(
        learning_rates=RATES,
        losses=(2.0, 2.1, 1.5, 0.7, 90.0),
        smoothed=(2.0, 2.0, 1.6, 0.9, 40.0),
        suggestion=suggestion,
        reason="Because.",
    )


def test_the_curve_shows_valley_suggestion_and_steepest_point():
    (axes,) = learning_rate_curve(search(SUGGESTION)).axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["a step's batch", "smoothed", "valley", "suggested: 0.001", "steepest: 0.005"]
    _, suggested, steepest = axes.lines
    assert (suggested.get_xdata()[0], steepest.get_xdata()[0]) == (1e-3, 5e-3)
    assert axes.get_xscale() == "log"


def test_a_divergence_does_not_flatten_the_valley():
    (axes,) = learning_rate_curve(
        search(SUGGESTION)
        .model_copy(update={"losses": (*[2.0] * 10, 0.7, 90.0)})
        .model_copy(update={"learning_rates": tuple(range(1, 13)), "smoothed": (1.0,) * 12})
    ).axes
    low, high = axes.get_ylim()
    assert low < 0.7
    assert 2.0 < high < 3.0


def test_a_report_has_figures_reason_and_picture():
    figures, reason, picture = search_blocks(search(SUGGESTION))
    assert isinstance(figures, Figures)
    assert [value for _, value, _ in figures.items] == ["0.001", "0.005"]
    assert reason == "Because."
    assert isinstance(picture, Picture)
    assert "5 steps" in picture.caption


def test_a_search_without_suggestion_is_a_notice():
    notice, picture = search_blocks(search(None))
    assert notice == Notice("bad", "Because.")
    assert isinstance(picture, Picture)
    (axes,) = learning_rate_curve(search(None)).axes
    assert len(axes.lines) == 1


@pytest.mark.parametrize("suggestion", [SUGGESTION, None])
def test_the_file_form_gives_the_same_again(suggestion):
    found = search(suggestion)
    assert LearningRateSearch.model_validate_json(found.model_dump_json()) == found


def test_a_search_that_measured_nothing_has_no_picture():
    empty = {"learning_rates": (), "losses": (), "smoothed": (), "suggestion": None}
    assert search_blocks(search(None).model_copy(update=empty)) == [Notice("bad", "Because.")]
