import json

import pytest

from components.profile.describe import Profile, describe
from components.profile.settings import ProfileSettings
from components.shared.dataset.manifest import ChannelIntensity, make_manifest

DEFAULT = ProfileSettings()


@pytest.fixture
def small(make_entry):
    """Three volumes with numbers that are easily summed."""

    def intensity(p50):
        return tuple(
            ChannelIntensity(mean=p50 + channel, p1=0, p50=p50 + channel, p99=100 + p50)
            for channel in range(3)
        )

    return make_manifest(
        [
            make_entry(1, slices=10, tumour_slices=5, tumour_pixels=100, intensity=intensity(10)),
            make_entry(
                2,
                slices=20,
                tumour_slices=0,
                tumour_pixels=0,
                intensity=intensity(20),
                missing=("pre-contrast",),
            ),
            make_entry(
                3,
                site="HT",
                slices=30,
                tumour_slices=15,
                tumour_pixels=300,
                intensity=intensity(60),
                missing=("pre-contrast", "post-contrast"),
            ),
        ]
    )


@pytest.fixture
def found(small, make_account):
    profile, _ = describe(small, make_account(), DEFAULT)
    return profile


def test_counts_the_whole_and_each_site(found):
    assert found.counts.model_dump(exclude={"tumour_pixels", "tumour_ml"}) == {
        "patients": 3,
        "volumes": 3,
        "slices": 60,
        "tumour_slices": 20,
        "tumour_volumes": 2,
        "lacking_sequence": 2,
    }
    assert {site: counts.slices for site, counts in found.sites.items()} == {"CS": 30, "HT": 30}


def test_tumour_size_is_of_volumes_that_have_one(found):
    assert found.counts.tumour_pixels.minimum == 100
    assert found.counts.tumour_pixels.median == 200
    assert found.sites["CS"].tumour_pixels.maximum == 100


def test_sums_up_slices_and_tumour_share(found):
    assert list(found.slices.model_dump().values()) == [10, 15, 20, 25, 30]
    assert (found.tumour_share.minimum, found.tumour_share.median) == (0, 0.5)


def test_sums_up_each_channel(found):
    assert [channel.channel for channel in found.channels] == [
        "pre-contrast",
        "FLAIR",
        "post-contrast",
    ]
    assert [channel.median.median for channel in found.channels] == [20, 21, 22]
    assert [channel.bright.maximum for channel in found.channels] == [160, 160, 160]
    assert [channel.lacking for channel in found.channels] == [2, 0, 1]


def test_is_json_that_reads_back(found, small):
    text = found.model_dump_json()
    assert Profile.model_validate_json(text) == found
    loaded = json.loads(text)
    assert loaded["dataset_id"] == small.dataset_id
    assert loaded["limits"][0]["kept"] is False
    assert loaded["ingest"]["files_found"] == 1600


def test_a_site_without_any_tumour_has_no_size(make_data, make_account):
    profile, _ = describe(make_data(12, tumour_pixels=0), make_account(), DEFAULT)
    assert profile.counts.tumour_pixels is None


def test_the_order_of_the_volumes_has_no_influence(small, make_account, found):
    turned = small.model_copy(update={"volumes": small.volumes[::-1]})
    assert describe(turned, make_account(), DEFAULT)[0] == found
