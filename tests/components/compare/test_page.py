import functools
import re

import pytest

from components.compare.candidates import measure
from components.compare.page import on_validation, render_comparison
from components.compare.ranking import rank
from components.compare.settings import CompareSettings
from components.shared.scoring.groups import first_of_each_third
from components.shared.tracking.server import connect

SETTINGS = CompareSettings(device="cpu")


@pytest.fixture(scope="module")
def render(module_world):
    world, client = module_world, connect()
    shown = first_of_each_third(world.dataset.entries("validation"), SETTINGS.overlay_volumes)
    measured = {
        label: measure(trained, world.dataset, SETTINGS, client, shown)
        for label, trained in world.trained.items()
    }

    @functools.cache
    def render(*labels):
        ranked = rank([measured[label] for label in labels], SETTINGS.confidence)
        return render_comparison(ranked, shown, on_validation(world.dataset), SETTINGS, "parent")

    return render


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<main>")[2]))


def test_it_says_who_is_chosen_by_whom_and_that_test_patients_were_left_alone(render):
    text = text_of(render("dim", "right", "blind"))
    assert "right is chosen: its mean patient Dice of" in text
    assert "the highest on the 4 validation patients" in text
    assert "The choice uses validation patients only. The 3 test patients were not read." in text
    assert "Only the chosen model is evaluated on them and compared with the champion." in text


def test_it_warns_where_chance_may_choose_and_names_the_others(render):
    assert "The choice may be due to chance" not in text_of(render("right", "blind"))
    assert "not shown to be worse: twin." in text_of(render("right", "twin"))


def test_the_same_patients_stand_side_by_side_with_each_recipes_dice(render):
    page = render("dim", "right", "blind")
    galleries = page.split('<div class="gallery">')[1:]
    assert len(galleries) == 3
    for gallery in galleries:
        captions = re.findall(r"<figcaption[^>]*>(.*?): Dice", gallery)
        assert captions == ["right", "dim", "blind"]


def test_costs_stand_beside_the_dice_in_table_and_picture(render):
    page = render("dim", "right")
    heads = re.findall(r"<th[^>]*>(.*?)</th>", page)
    for head in ("difference to the best", "training, min", "parameters, M", "prediction, s"):
        assert head in heads
    assert page.count("data:image/svg+xml") == 2


def test_one_recipe_has_no_differences(render):
    assert "they need two recipes and two validation patients" in text_of(render("right"))
