import pytest

from components.radiogenomics.page import render_analysis
from components.radiogenomics.results import analyze
from tests.components.radiogenomics.test_results import EXPERT, PREDICTED, SUBTYPES, measured


def test_the_page_has_the_papers_values_where_they_are_known():
    page = render_analysis(analyze([*EXPERT, *PREDICTED], SUBTYPES, has_model=True), "data set x")
    assert page.count("p &lt; 0.0002") == 1
    assert page.count("p &lt; 0.005") == 1
    assert "data set x" in page
    other = {"subtype": SUBTYPES["RNASeqCluster"]}
    page = render_analysis(analyze([*EXPERT, *PREDICTED], other, has_model=True), "data set x")
    assert "p &lt; 0.0002" not in page


@pytest.mark.parametrize(
    ("predicted", "text"),
    [
        (PREDICTED, "Only 4 patients are unseen by the model."),
        ([], "The model has seen every patient of this data set"),
    ],
)
def test_few_unseen_patients_are_a_warning(predicted, text):
    expert = [
        one.model_copy(update={"is_unseen": one.is_unseen and bool(predicted)}) for one in EXPERT
    ]
    page = render_analysis(analyze([*expert, *predicted], SUBTYPES, has_model=True), "")
    assert text in page
    assert f"trained or selected on {3 if predicted else 7} of these patients" in page


def test_many_unseen_patients_need_no_warning():
    many = [
        measured(f"{masks}{n}"[-3:], float(n), masks)
        for n in range(100, 160)
        for masks in ("expert", "predicted")
    ]
    page = render_analysis(analyze(many, {"x": {"100": 1.0}}, has_model=True), "")
    assert 'class="notice' not in page.replace("class='notice", "")
