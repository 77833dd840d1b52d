import html

import pytest

from components.shared.model.settings import Network
from components.shared.report.learning_rate import LearningRateSearch, Suggestion
from components.train.page import render_search, search_scope
from components.train.recipe import Recipe

FOUND = LearningRateSearch(
    learning_rates=(1e-4, 1e-3, 1e-2),
    losses=(2.0, 1.0, 1.5),
    smoothed=(2.0, 1.1, 1.4),
    suggestion=Suggestion(
        learning_rate=3e-4, valley=(1e-4, 1e-3), valley_losses=(2.0, 1.1), steepest=5e-4
    ),
    reason="The loss falls from 2 to 1.1.",
)
PLAIN = {"encoder_weights": "none"}


@pytest.fixture
def shown():
    """Gives the text of the page of a search."""

    def shown(search=FOUND, **recipe):
        page = render_search(search, Recipe.model_validate(recipe), "da7a", 7)
        return html.unescape(page)

    return shown


def test_the_page_says_how_to_train_with_the_suggestion(shown):
    page = shown(network={"encoder": "resnet34", **PLAIN}, optimizer={"learning_rate": 0.002})
    assert (
        "unet with resnet34, 256 pixels, batches of 32; data set da7a, 7 training volumes" in page
    )
    assert FOUND.reason in page
    assert "The recipe has 0.002. To train with the suggestion" in page
    assert "--set train.optimizer.learning_rate=0.0003" in page
    assert page.count("data:image/svg+xml") == 1


def test_without_a_suggestion_none_is_to_be_used(shown):
    nothing = FOUND.model_copy(update={"suggestion": None, "reason": "The loss falls nowhere."})
    page = shown(nothing, network=PLAIN)
    assert "The loss falls nowhere." in page
    assert "Check the masks and the augmentation" in page
    assert "--set train.optimizer.learning_rate" not in page


def test_the_suggestion_is_the_peak_of_the_first_phase(shown):
    page = shown(network=PLAIN, schedule={"epochs": 2, "phases": [{"lr_factor": 0.1}]})
    assert "--set train.optimizer.learning_rate=0.003 " in page
    assert "whose lr_factor is 0.1: train.optimizer.learning_rate=0.003 gives it." in page
    assert "lr_factor" not in shown(network=PLAIN)


def test_of_two_networks_it_is_said_which_was_searched(shown):
    second = {**PLAIN, "sequences": "reference"}
    scope = "It is for the first of the recipe's two networks"
    assert scope in shown(network=PLAIN, flair_network=second)
    assert scope not in shown(network=PLAIN)
    assert search_scope(FOUND, Recipe(network=Network(encoder_weights="none"))) == ""
