"""The page of all predictions of a model version."""

from components.predict.overview import render_overview
from components.predict.planning import InferencePlan
from tests.components.predict.test_stored import row

PLAN = InferencePlan(model="models:/m/1", source="in", cases=("a", "b"), refused={}, known=0)


def test_the_worst_cases_come_first():
    rows = [
        row("calm", mean_entropy=0.1),
        row("unsure", mean_entropy=0.9),
        row("flagged", flags=("uncertain",), mean_entropy=0.5),
    ]
    page = render_overview(PLAN, rows, "run-1")
    assert page.index("flagged</td>") < page.index("unsure</td>") < page.index("calm</td>")
    assert "Refused cases" not in page


def test_planned_cases_without_a_row_of_the_run_are_mentioned():
    other = row("b", pipeline_run="run-0")
    page = render_overview(PLAN, [row("a"), other], "run-1")
    assert "another run has predicted, or that are gone: 1." in page
    assert "or that are gone" not in render_overview(PLAN, [row("a"), row("b")], "run-1")
