import numpy as np

from components.shared.scoring.groups import first_of_each_third, group, size_thirds, tumour_sizes

SHAPE = (3, 6, 5)


def test_size_thirds_are_by_rank_and_ties_by_name(score, some_scores):
    scores = some_scores(6)
    sizes = size_thirds(list(reversed(scores)))

    assert size_thirds(scores) == sizes
    by_size = sorted(scores, key=lambda one: one.tumour_pixels)
    thirds = [sizes[one.volume] for one in by_size]
    assert thirds == ["small"] * 2 + ["medium"] * 2 + ["large"] * 2
    empty = [score(np.zeros(SHAPE), np.zeros(SHAPE), f"TCGA_CS_000{n}_20000101") for n in (2, 0, 1)]
    assert size_thirds(empty) == {
        "TCGA_CS_0000_20000101": "small",
        "TCGA_CS_0001_20000101": "medium",
        "TCGA_CS_0002_20000101": "large",
    }


def test_sizes_are_milliliters_only_if_all_are_known(make_patient_score):
    def score(number, pixels, milliliters):
        return make_patient_score(f"v{number}", pixels, 0, tumour_ml=milliliters)

    scores = [score(0, 100, 30.0), score(1, 200, 20.0), score(2, 300, 10.0)]
    assert tumour_sizes(scores) == ("ml", {"v0": 30, "v1": 20, "v2": 10})
    assert list(size_thirds(scores).items()) == [("v2", "small"), ("v1", "medium"), ("v0", "large")]
    scores[0] = score(0, 100, None)
    assert tumour_sizes(scores) == ("pixels", {"v0": 100, "v1": 200, "v2": 300})
    assert size_thirds(scores)["v0"] == "small"


def test_every_patient_is_in_one_site_and_one_size(some_scores):
    scores = some_scores(7)

    groups = group(scores)

    assert list(groups) == [
        "site/CS",
        "site/DU",
        "site/HT",
        "size/small",
        "size/medium",
        "size/large",
    ]
    for kind in ("site/", "size/"):
        names = [one.volume for key, some in groups.items() if key.startswith(kind) for one in some]
        assert sorted(names) == [one.volume for one in sorted(scores, key=lambda one: one.volume)]
    assert list(group(scores[:1])) == ["site/CS", "size/small"]


def test_the_first_of_each_third_do_not_depend_on_the_model(make_patient_score):
    scores = [make_patient_score(f"v{n:02}", 100 * n, 50 * n) for n in range(9)]
    worse = [make_patient_score(one.volume, one.tumour_pixels, 0) for one in reversed(scores)]
    names = first_of_each_third(scores, 2)
    assert names == ["v00", "v01", "v03", "v04", "v06", "v07"]
    assert first_of_each_third(worse, 2) == names
