import re

import pytest

from components.shared.config import parse_config
from components.shared.errors import UserError
from components.train.recipe import Recipe, Schedule


def test_defaults_are_a_valid_recipe():
    assert parse_config(Recipe, "", "train") == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule: {epochs: 0}", "train.schedule.epochs=0: Input should be greater than or"),
        ("network: {image_size: 100}", "train.network.image_size=100.*multiple of 32"),
        ("compute: {precision: fp8}", "train.compute.precision='fp8'.*bf16-mixed"),
        ("network: {encoder_depth: 4, decoder_channels: [8, 8, 8]}", "3 widths for 4 stages"),
        ("network: {architecture: fpn, decoder_channels: [8]}", "fpn has none"),
        ("network: {decoder_channels: []}", "0 widths for 5 stages"),
        (
            "network: {decoder_channels: [8, 8, 8, 8, -1]}",
            "train.network.decoder_channels.4=-1: Input should be greater than 0",
        ),
        (
            "sampling: {batch_size: 33, accumulate: 2}",
            "accumulate=2 needs a multiple of 2, at least 4",
        ),
        (
            "sampling: {batch_size: 8, accumulate: 8}",
            "accumulate=8 needs a multiple of 8, at least 16",
        ),
        ("schedule: {epochs: yes}", "train.schedule.epochs=True: Input should be a number, not"),
        ("network: {architecture: unett}", r"or package\.module:function \(nearest: unet\)$"),
        (
            "network: {architecture: fnp, decoder_channels: [8]}",
            r"package\.module:function \(nearest: fpn\)$",
        ),
        ("optimizer: {loss: dice loss}", "train.optimizer.loss.0.name='dice loss': .*must be a na"),
        ("optimizer: {loss: bce+}", "train.optimizer.loss.1.name='': .*must be a name or package"),
        ("optimizer: {loss: []}", r"train.optimizer.loss=\[\]: Tuple should have at least 1 item"),
        ("optimizer: {loss: {alpha: 0.3}}", "train.optimizer.loss.0.name: Field required"),
        ("optimizer: {loss: {name: bce, weight: 0}}", "loss.0.weight=0: Input should be greater"),
        ("optimizer: {method: [SGD]}", "train.optimizer.method=.*: Input should be a valid dict"),
        ("schedule: {lr_schedule: onecycle}", r"or cosine, a class .* \(nearest: one_cycle\)$"),
        ("schedule: {warmup_fraction: 0}", "lr_schedule=one_cycle needs a warmup_fraction above"),
        ("network: {normalization: imagnet}", r"or 'imagenet' \(nearest: imagenet\)$"),
        ("optimizer: {learning_rate: .nan}", "train.optimizer.learning_rate=nan"),
        ("seed: 4294967296", "train.seed=4294967296: Input should be less than"),
        ("augmentation: {policy: fastai}", "fastai needs network.normalization=imagenet"),
        (
            "augmentation: {policy: fastai, gamma: 2, rotation_degrees: 30}",
            "policy=fastai does not accept rotation_degrees, gamma",
        ),
        (
            "schedule: {phases: [{augmentation: {policy: fastai}}]}",
            "fastai needs network.normalization=imagenet",
        ),
        (
            "{network: {min_component_fraction: 0.1}, flair_network: {sequences: reference}}",
            "^train: min_component_fraction .* not network 0.1 and flair_network 0$",
        ),
        ("schedule: 3", "train.schedule=3: Input should be a valid dictionary"),
        ("[1, 2]", "must be `key: value` pairs"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named(text, message):
    with pytest.raises(UserError, match=message):
        parse_config(Recipe, text, "train")


@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        ("flair_network: {sequence: flair}", "flair_network", "sequences"),
        ("schedule: {phases: [{}, {lenght: 2}]}", "schedule.phases.1", "length"),
        ("schedule: {phases: [{imagesize: 64}]}", "schedule.phases.0", "image_size"),
    ],
)
def test_a_misspelt_setting_of_the_second_network_or_a_phase_is_told_there(text, place, nearest):
    message = (
        rf"is not a setting \(nearest: train\.{place}\.{nearest}\)\. Settings of train\.{place}:"
    )
    with pytest.raises(UserError, match=message):
        parse_config(Recipe, text, "train")


def test_the_least_batch_is_shared_out():
    assert parse_config(Recipe, "sampling: {batch_size: 16, accumulate: 8}", "train")


@pytest.mark.parametrize(
    ("epochs", "asked", "validated"),
    [(12, 4, [4, 8, 12]), (13, 4, [1, 5, 9, 13]), (7, 4, [3, 7]), (1, 4, [1]), (12, 20, [12])],
)
def test_the_last_epoch_is_always_validated(epochs, asked, validated):
    """Of 13 epochs, every one was validated instead of every fourth."""
    schedule = Schedule(epochs=epochs, validate_every_epochs=asked)
    assert [e + 1 for e in range(epochs) if schedule.is_validated(e)] == validated


@pytest.mark.parametrize(
    "network",
    ["network: {image_size: 64}", "flair_network: {image_size: 64, sequences: reference}"],
)
def test_a_phase_with_larger_slices_than_the_network_is_refused(network):
    """They were taken from the small ones by interpolation."""
    phases = "schedule: {phases: [{image_size: 64}, {image_size: 128}]}"
    with pytest.raises(UserError, match="a phase has image_size=128, but the network's is 64"):
        parse_config(Recipe, f"{network}\n{phases}", "train")


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("bce+dice", "bce+dice"),
        ("[bce, {name: dice, weight: 1}]", "bce+dice"),
        ("{name: bce}", "bce"),
        ("{name: A, alpha: 1e-3}", {"name": "A", "weight": 1.0, "alpha": 0.001}),
        (
            "[{name: A, betas: [1e2, x1e2]}, b]",
            [{"name": "A", "weight": 1.0, "betas": [100.0, "x1e2"]}, "b"],
        ),
        ("{name: 'my.losses:A', weight: 2}", {"name": "my.losses:A", "weight": 2.0}),
    ],
)
def test_a_loss_is_stored_in_its_shortest_form(text, shortest):
    """The identity of a training run and MLflow's parameters are made from that form."""
    recipe = parse_config(Recipe, f"optimizer: {{loss: {text}}}", "train")
    assert recipe.model_dump(mode="json")["optimizer"]["loss"] == shortest
    assert parse_config(Recipe, recipe.model_dump_json(), "train") == recipe


def test_named_parts_are_stored_in_their_shortest_form():
    text = "{optimizer: {method: {name: SGD, momentum: 0.9}}, schedule: {lr_schedule: cosine}}"
    recipe = parse_config(Recipe, text, "train")
    shown = recipe.model_dump(mode="json")
    assert shown["optimizer"]["method"] == {"name": "SGD", "momentum": 0.9}
    assert shown["schedule"]["lr_schedule"] == "cosine"
    assert parse_config(Recipe, recipe.model_dump_json(), "train") == recipe
    assert Recipe().model_dump(mode="json")["optimizer"]["method"] == "adamw"


@pytest.mark.parametrize(
    ("text", "former", "present"),
    [
        ("optimiser: {method: muon}", "optimiser", "optimizer"),
        ("schedule: {course: cosine}", "schedule.course", "schedule.lr_schedule"),
        ("schedule: {warm_up: 0.1}", "schedule.warm_up", "schedule.warmup_fraction"),
        (
            "schedule: {phases: [{}, {rate_factor: 0.1}]}",
            "schedule.phases.1.rate_factor",
            "schedule.phases.1.lr_factor",
        ),
        ("schedule: {keep: last}", "schedule.keep", "schedule.checkpoint"),
        ("sampling: {tumour_share: 0.5}", "sampling.tumour_share", "sampling.foreground_fraction"),
        ("augmentation: {shading: 0.3}", "augmentation.shading", "augmentation.bias_field"),
        (
            "augmentation: {missing_sequence_share: 0.3}",
            "augmentation.missing_sequence_share",
            "augmentation.modality_dropout_prob",
        ),
        (
            "augmentation: {carvemix_share: 0.3}",
            "augmentation.carvemix_share",
            "augmentation.carvemix_prob",
        ),
        ("network: {normalisation: head}", "network.normalisation", "network.normalization"),
        (
            "network: {min_component_share: 0.1}",
            "network.min_component_share",
            "network.min_component_fraction",
        ),
        (
            "flair_network: {sequences: reference, normalisation: head}",
            "flair_network.normalisation",
            "flair_network.normalization",
        ),
        ("tumour_share: 0.5", "tumour_share", "sampling.foreground_fraction"),
        ("schedule: {tumour_share: 0.5}", "schedule.tumour_share", "sampling.foreground_fraction"),
    ],
)
def test_a_former_name_is_refused_with_the_present_one(text, former, present):
    with pytest.raises(UserError) as caught:
        parse_config(Recipe, text, "train")
    assert str(caught.value).startswith(f"train.{former} is now train.{present}. Settings of train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augmentation: {policy: sizes}", "'custom' or 'fastai' (sizes is now custom)"),
        ("network: {sequences: flair}", "'all' or 'reference' (flair is now reference)"),
    ],
)
def test_a_former_value_is_refused_with_the_present_one(text, message):
    with pytest.raises(UserError, match=f"{re.escape(message)}$"):
        parse_config(Recipe, text, "train")


def test_the_removed_compile_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"^train\.compute\.compile was removed: torch\.compile "):
        parse_config(Recipe, "compute: {compile: true}", "train")


# the recipe before it had sections
_FLAT = {
    "network": (
        "architecture",
        "encoder",
        "encoder_weights",
        "encoder_depth",
        "decoder_channels",
        "image_size",
        "context_slices",
    ),
    "sampling": ("batch_size", "foreground_fraction"),
    "augmentation": (
        "rotation_degrees",
        "scale_factor",
        "intensity_shift",
        "modality_dropout_prob",
    ),
    "optimizer": ("learning_rate", "weight_decay"),
    "schedule": ("epochs", "validate_every_epochs"),
    "compute": ("precision", "device", "loader_workers"),
}


@pytest.mark.parametrize("key", ["weight", "name", "length"])
def test_settings_that_never_were_flat_are_not_said_to_have_moved(key):
    with pytest.raises(UserError, match=rf"^train\.{key} is not a setting \(nearest: train\."):
        parse_config(Recipe, f"{key}: 1", "train")


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in _FLAT.items() for key in keys]
)
def test_a_flat_setting_is_refused_with_its_new_name(section, key):
    with pytest.raises(UserError, match=rf"^train\.{key} is now train\.{section}\.{key}\. "):
        parse_config(Recipe, f"{key}: 1", "train")


def test_a_misspelt_setting_names_the_nearest_and_those_of_its_section():
    with pytest.raises(UserError) as caught:
        parse_config(Recipe, "{epoch: 3, network: {encodr: resnet18}}", "train")
    assert str(caught.value) == (
        "train.network.encodr is not a setting (nearest: train.network.encoder); "
        "train.epoch is not a setting (nearest: train.schedule.epochs). "
        "Settings of train.network: architecture, encoder, encoder_weights, initial_weights, "
        "encoder_depth, decoder_channels, image_size, context_slices, sequences, normalization, "
        "crop, test_time_flip, min_component_fraction. Settings of train: network, flair_network, "
        "sampling, augmentation, optimizer, schedule, compute, seed"
    )
