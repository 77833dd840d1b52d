import pytest

from components.profile.limits import check_limits, require_kept
from components.profile.measures import measure
from components.profile.settings import ProfileSettings
from components.shared.config import parse_config
from components.shared.dataset.manifest import make_manifest
from components.shared.errors import UserError

DEFAULT = ProfileSettings()
OTHERS = ("max_drift", "on_drift", "montage_volumes")  # they need a reference, or limit nothing


def stop(data, quarantined=0, settings=DEFAULT):
    with pytest.raises(UserError) as caught:
        require_kept(check_limits(measure(data), quarantined, settings), lambda: "More.")
    return str(caught.value)


def test_good_data_pass(make_data):
    require_kept(check_limits(measure(make_data(20)), 1, DEFAULT), pytest.fail)


def test_too_few_patients(make_data):
    assert stop(make_data(4)) == (
        "profile: this data set is not fit for training. patients: 4, must be at least 10: add "
        "patients, or lower profile.min_patients. More."
    )


def test_many_volumes_of_few_patients_are_few_patients(make_entry):
    data = make_manifest(
        make_entry(number, patient=f"P{number % 4}", volume=f"V{number}") for number in range(20)
    )
    assert "patients: 4, must be at least 10" in stop(data)


def test_advice_names_the_channels(make_foreign):
    data = make_foreign()
    lacking = [entry.model_copy(update={"missing": ("T1",)}) for entry in data.volumes]
    assert ": deliver T1 and T2, or raise" in stop(make_manifest(lacking, data.channels))


def test_no_tumour(make_data):
    message = stop(make_data(20, tumour_pixels=0, tumour_slices=0))
    assert "patients with tumour: 0, must be at least 3: add patients with tumour" in message


def test_single_slices_in_place_of_volumes(make_data):
    message = stop(make_data(20, slices=1, tumour_slices=1, tumour_pixels=10))
    assert "median slices per volume: 1, must be at least 5: deliver whole volumes" in message


def test_inverted_masks(make_data):
    message = stop(make_data(20, slices=20, tumour_pixels=20 * 256 * 256 - 500))
    assert "fraction of pixels with tumour: 0.9996, must be at most 0.3: check whether" in message


def test_too_many_quarantined(make_data):
    message = stop(make_data(20), quarantined=20)
    assert "fraction of volumes in quarantine: 0.5, must be at most 0.2: fix the volumes" in message


def test_too_many_lack_a_sequence(make_data):
    message = stop(make_data(20, missing=("post-contrast",)))
    assert "fraction of volumes without a sequence: 1, must be at most 0.5: deliver" in message


def test_names_every_failed_check(make_data):
    message = stop(make_data(4), quarantined=4)
    assert "patients: 4" in message
    assert "quarantine: 0.5" in message


def test_a_value_at_its_limit_passes(make_data):
    limits = check_limits(
        measure(make_data(10)), 2, ProfileSettings(max_quarantined_fraction=2 / 12)
    )
    assert all(limit.kept for limit in limits)


def test_every_limit_is_a_setting_with_a_check(make_data):
    limits = check_limits(measure(make_data(20)), 0, DEFAULT)
    limits = {limit.setting: limit.limit for limit in limits}
    assert limits == {
        name: value for name, value in DEFAULT.model_dump().items() if name not in OTHERS
    }


@pytest.mark.parametrize("name", ["tumour_pixel", "quarantined", "missing_sequence"])
def test_the_former_name_of_a_limit_is_refused_with_the_present_one(name):
    with pytest.raises(UserError, match=f"max_{name}_share is now profile.max_{name}_fraction"):
        parse_config(ProfileSettings, f"max_{name}_share: 0.1", "profile")
