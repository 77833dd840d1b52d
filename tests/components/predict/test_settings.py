"""Settings of the predict step."""

import pytest

from components.predict.settings import PredictSettings
from components.shared.config import parse_config
from components.shared.errors import UserError
from components.shared.reading.scans import SizeLimits


def test_the_limits_of_a_volume_are_those_of_the_settings():
    settings = parse_config(PredictSettings, "{max_file_mib: 1, max_volume_mib: 2}", "predict")
    assert settings.limits == SizeLimits(1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{shard_volumes: 0}", "predict.shard_volumes=0: "),
        ("{quality: {max_entropy: 2}}", "predict.quality.max_entropy=2: "),
        ("{quality: {entropy: 0.5}}", "predict.quality.entropy is not a setting"),
    ],
)
def test_values_out_of_range_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(PredictSettings, text, "predict")
