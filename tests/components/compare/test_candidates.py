import pytest

from components.compare.candidates import measure
from components.compare.settings import CompareSettings
from components.shared.errors import UserError
from components.shared.tracking.runs import log_metrics
from components.shared.tracking.server import connect

SETTINGS = CompareSettings(device="cpu")


def test_only_validation_patients_are_predicted(world):
    world.lose_the_test_part()
    found = measure(world.trained["right"], world.dataset, SETTINGS, connect(), [])
    assert [score.volume for score in found.scores] == list(world.dataset.split.part("validation"))
    assert found.label == "right"
    assert found.dice > 0.5
    assert found.parameters == 1_927_009
    assert found.predict_seconds > 0


def test_the_patients_asked_for_are_drawn(world):
    shown = world.dataset.split.part("validation")[1]
    found = measure(world.trained["right"], world.dataset, SETTINGS, connect(), [shown])
    assert list(found.overlays) == [shown]
    assert found.overlays[shown].shape[-1] == 3


def test_training_lasts_from_the_opening_of_its_run_to_its_last_epoch(world):
    client, trained = connect(), world.trained["right"]
    started = client.get_run(trained.run_id).info.start_time
    client.log_metric(trained.run_id, "validation_dice", 0.6, timestamp=started + 90_000, step=2)
    log_metrics(client, trained.run_id, {"patient_dice_mean": 0.5})
    found = measure(trained, world.dataset, SETTINGS, client, [])
    assert found.train_minutes == pytest.approx(1.5)
    later = started + 150_000
    client.log_metric(trained.run_id, "flair_validation_dice", 0.4, timestamp=later, step=2)
    found = measure(trained, world.dataset, SETTINGS, client, [])
    assert found.train_minutes == pytest.approx(2.5)


def test_a_model_that_is_none_is_refused(world, threshold_model):
    broken = world.train("broken", threshold_model(float("nan")))
    with pytest.raises(UserError, match="the model returned values from nan"):
        measure(broken, world.dataset, SETTINGS, connect(), [])
