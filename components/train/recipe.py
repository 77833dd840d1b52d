"""Training configuration: the `Recipe` and its sections."""

import re
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from components.shared.config import Config, in_words, nearest
from components.shared.model.settings import Network

_RENAMED = {
    "optimiser": "optimizer",  # codespell:ignore
    "course": "lr_schedule",
    "warm_up": "warmup_fraction",
    "rate_factor": "lr_factor",
    "keep": "checkpoint",
    "tumour_share": "foreground_fraction",
    "shading": "bias_field",
    "missing_sequence_share": "modality_dropout_prob",
    "carvemix_share": "carvemix_prob",
    "sizes": "custom",  # augmentation.policy
    "normalisation": "normalization",  # codespell:ignore
    "min_component_share": "min_component_fraction",
    "flair": "reference",  # network.sequences
}
"""Former names of settings, and of two values, with the present ones."""

_REMOVED = {
    "compile": "torch.compile gained nothing where it was measured; leave the setting out",
    "store_every_s": "the state is stored after every epoch; leave the setting out",
}

_LR_SCHEDULES = ("one_cycle", "cosine")  # of this project


class Named(Config):
    """A class of a library with its options: `NAME` or `{name: NAME, OPTION: VALUE}`.

    Attributes:
        name: Name in this project such as `adamw`, in a library such as `SGD`, or
            `package.module:Class`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("must be a name or package.module:Class")
        return value

    @model_validator(mode="after")
    def _read_exponents(self) -> Self:
        self.options.update({key: _as_number(value) for key, value in self.options.items()})
        return self

    @model_serializer(mode="wrap")
    def _as_short_as_possible(self, serialize: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401
        return serialize(self) if self.has_options else self.name

    @property
    def options(self) -> dict[str, JsonValue]:
        """Arguments of the class."""
        return self.__pydantic_extra__

    @property
    def has_options(self) -> bool:
        """True if the name alone does not describe it."""
        return bool(self.options)


def _as_number(value: JsonValue) -> JsonValue:
    """Reads 1e-3, which is text in YAML 1.1, as a number."""
    if isinstance(value, list):
        return [_as_number(each) for each in value]
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if is_number else value  # type: ignore[arg-type]


class Loss(Named):
    """A term of the loss.

    Attributes:
        name: `bce` (cross-entropy of pixels), `dice` (one minus the soft Dice of the batch), a
            class of `segmentation_models_pytorch.losses` or `torch.nn` such as `TverskyLoss`, or
            `package.module:Class`.
        weight: Factor of the term in the sum.
    """

    weight: float = Field(default=1.0, gt=0.0)

    @property
    def has_options(self) -> bool:
        """True if the name alone does not describe it."""
        return bool(self.options) or self.weight != 1


class Sampling(Config):
    """Slices of an optimizer step and of an epoch.

    Attributes:
        batch_size: Slices per optimizer step, over all devices together.
        accumulate: Micro-batches per step and device, one after the other; memory falls by this
            factor. Batch normalization and the Dice term of the loss use one micro-batch, over
            all devices.
        foreground_fraction: Fraction of the sampled slices that contain tumour (foreground
            oversampling); every such slice is drawn once per epoch.
    """

    batch_size: int = Field(default=32, ge=2)
    accumulate: int = Field(default=1, ge=1)
    foreground_fraction: float = Field(default=0.6, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _is_divisible(self) -> Self:
        parts = self.accumulate  # more where several processes train; they check that themselves
        if self.batch_size % parts or self.batch_size < 2 * parts:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be divided: accumulate={parts} needs a "
                f"multiple of {parts}, at least {2 * parts}"
            )
        return self


class Augmentation(Config):
    """Random changes of slices and their strength.

    Attributes:
        policy: `custom` uses the other settings; `fastai` is that library's default for
            photographs, requires ImageNet normalization and accepts no other setting of this
            section except `carvemix_prob`.
        rotation_degrees: Largest rotation, in both directions.
        scale_factor: Largest relative zoom, in both directions.
        intensity_shift: Largest change of a sequence's brightness (in standard deviations of the
            volume) and contrast (relative).
        elastic_shift: Largest displacement of a smooth random field, as a fraction of the side.
        gamma: Largest exponent of a slice's intensities, which are scaled to 0..1 before; the
            smallest exponent is its inverse.
        sharpness_shift: Largest blurring or sharpening: the fraction of a slice's difference
            from a copy of half the resolution that is subtracted or added.
        bias_field: Largest factor, minus one, of a smooth random field that multiplies or divides
            a sequence's intensities above the smallest one, as a coil's bias field does.
        modality_dropout_prob: Probability that a sequence of a slice is replaced by the data
            set's reference, as in scans that lack it.
        carvemix_prob: Probability that another slice's tumour is pasted with a margin around it
            (CarveMix), under both policies and before the other changes.
    """

    policy: Literal["custom", "fastai"] = "custom"
    rotation_degrees: float = Field(default=15.0, ge=0.0, le=180.0)
    scale_factor: float = Field(default=0.15, ge=0.0, lt=1.0)
    intensity_shift: float = Field(default=0.2, ge=0.0)
    elastic_shift: float = Field(default=0.0, ge=0.0, le=0.2)
    gamma: float = Field(default=1.0, ge=1.0, le=4.0)
    sharpness_shift: float = Field(default=0.0, ge=0.0, le=1.0)
    bias_field: float = Field(default=0.0, ge=0.0, le=2.0)
    modality_dropout_prob: float = Field(default=0.1, ge=0.0, le=1.0)
    carvemix_prob: float = Field(default=0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if name not in ("policy", "carvemix_prob") and getattr(self, name) != field.default
        ]
        if self.policy == "fastai" and changed:
            raise ValueError(f"policy=fastai does not accept {', '.join(changed)}")
        return self


class OptimizerSettings(Config):
    """Optimizer, loss and weight averaging.

    Attributes:
        method: `adamw`, the default; `muon`, whose steps have the same size in all directions of
            a convolution's weights (Jordan et al. 2024), with AdamW for biases, norms and the
            output; or a class of `torch.optim`, a name in timm, or `package.module:Class`, with
            options: `{name: SGD, momentum: 0.9}`.
        learning_rate: Peak of the schedule.
        find_learning_rate: Search for the peak of the first phase before training, for each
            network; `learning_rate` is ignored.
        encoder_factor: Learning rate of the encoder relative to that of the other weights
            (discriminative learning rates).
        warm_start_factor: Factor of the learning rate where the network starts from
            `initial_weights`; a learning rate that is searched for has no factor.
        weight_decay: Weight decay as the method defines it; decoupled with `adamw` and `muon`.
        gradient_clip: Largest norm of the gradient; `None` does not clip. It has little effect
            with `muon`, whose steps have one size.
        loss: Terms of the loss: `bce+dice`, the default; one term with options
            (`{name: TverskyLoss, alpha: 0.3}`); or a list of terms, whose weighted sum it is.
        ema_decay: Largest decay of the moving average of the weights, which is validated and
            exported; in step n it is at most (1 + n) / (10 + n), so that the first weights are
            forgotten. `None` uses the weights themselves.
    """

    method: Named = Named(name="adamw")
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    find_learning_rate: bool = False
    encoder_factor: float = Field(default=1.0, gt=0.0, le=1.0)
    warm_start_factor: float = Field(default=0.1, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    gradient_clip: float | None = Field(default=None, gt=0.0)
    loss: tuple[Loss, ...] = Field(default=(Loss(name="bce"), Loss(name="dice")), min_length=1)
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)

    @field_validator("loss", mode="before")
    @classmethod
    def _as_terms(cls, value: object) -> object:
        if isinstance(value, str):
            return value.split("+")
        return [value] if isinstance(value, Mapping) else value

    @field_serializer("loss", mode="wrap")
    def _as_short_as_possible(
        self, value: tuple[Loss, ...], serialize: SerializerFunctionWrapHandler
    ) -> Any:  # noqa: ANN401
        if not any(term.has_options for term in value):
            return "+".join(term.name for term in value)
        terms = serialize(value)
        return terms if len(value) > 1 else terms[0]


class Phase(Config):
    """A part of a training run with its own learning-rate schedule.

    Attributes:
        length: Length relative to the other phases.
        image_size: Side of the training slices in pixels; `None` is the network's. Validation
            uses the network's size, as the exported model does.
        freeze_encoder: Fixed weights of the encoder, except batch normalization.
        lr_factor: Peak relative to the optimizer's learning rate.
        encoder_factor: Replaces the optimizer's `encoder_factor`; `None` uses that.
        augmentation: Replaces the recipe's section; `None` uses that.
    """

    length: float = Field(default=1.0, gt=0.0)
    image_size: int | None = Field(default=None, ge=32, le=1024, multiple_of=32)
    freeze_encoder: bool = False
    lr_factor: float = Field(default=1.0, gt=0.0, le=1.0)
    encoder_factor: float | None = Field(default=None, gt=0.0, le=1.0)
    augmentation: Augmentation | None = None


class Schedule(Config):
    """Epochs, learning-rate schedule and validation interval.

    Attributes:
        epochs: Passes over the sampled slices, in all phases together.
        phases: Parts of the epochs, each with its own learning-rate schedule.
        lr_schedule: `one_cycle`, the default (warm-up, cosine decay, momentum moved in the
            opposite direction); `cosine` (warm-up, cosine decay); or, after the warm-up, a class of
            `torch.optim.lr_scheduler` or `package.module:Class` that is stepped once per
            optimizer step, with options: `{name: PolynomialLR, power: 0.9}`.
        warmup_fraction: Fraction of a phase in which the learning rate rises to its peak.
        validate_every_epochs: Epochs between two validations, counted back from the last epoch,
            which is always validated.
        patience: Validations without improvement, in the last phase, after which the training
            stops early; `None` never does.
        checkpoint: Exported weights: those of the `best` epoch of the last phase, by validation
            Dice, or those of the `last` epoch.
    """

    epochs: int = Field(default=40, ge=1)
    phases: tuple[Phase, ...] = Field(default=(Phase(),), min_length=1)
    lr_schedule: Named = Named(name="one_cycle")
    warmup_fraction: float = Field(default=0.2, ge=0.0, lt=1.0)
    validate_every_epochs: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    checkpoint: Literal["best", "last"] = "best"

    @field_validator("lr_schedule")
    @classmethod
    def _is_ours_or_a_class(cls, value: Named) -> Named:
        if value.name.islower() and ":" not in value.name and value.name not in _LR_SCHEDULES:
            raise ValueError(
                f"{value.name} must be {' or '.join(_LR_SCHEDULES)}, a class of "
                "torch.optim.lr_scheduler, or package.module:Class"
                + in_words(nearest(value.name, _LR_SCHEDULES))
            )
        return value

    @model_validator(mode="after")
    def _begins_below_the_peak(self) -> Self:
        if self.lr_schedule.name == "one_cycle" and not self.warmup_fraction:
            raise ValueError("lr_schedule=one_cycle needs a warmup_fraction above 0")
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if any(first >= end for first, end in pairwise(self.phase_starts)):
            raise ValueError(f"{len(self.phases)} phases do not fit into {self.epochs} epochs")
        return self

    @property
    def phase_starts(self) -> tuple[int, ...]:
        """First epoch of each phase, from 0, followed by the number of epochs."""
        ends = accumulate((phase.length for phase in self.phases), initial=0.0)
        total = sum(phase.length for phase in self.phases)
        return tuple(round(self.epochs * end / total) for end in ends)

    @property
    def image_sizes(self) -> frozenset[int]:
        """Sides in pixels of the phases' training slices, where they differ from the network's."""
        return frozenset(phase.image_size for phase in self.phases if phase.image_size)

    def phase_at(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        return self.phases[min(bisect(self.phase_starts, epoch), len(self.phases)) - 1]

    def is_validated(self, epoch: int) -> bool:
        """True if an epoch, counted from 0, is followed by a validation."""
        return (self.epochs - 1 - epoch) % self.validate_every_epochs == 0


class Compute(Config):
    """Device, precision and threads of a training run.

    Attributes:
        precision: Arithmetic of the forward pass; weights stay float32. `auto` uses bfloat16 on
            GPUs and on CPUs with AMX or AMD's AVX512_BF16, float16 on older GPUs and float32
            elsewhere.
        device: `cpu`, `cuda` or `auto`.
        loader_workers: Processes that read slices; 0 reads in the training process.
        threads: CPU threads of a step; `None` uses the number that is fastest at the time, so that
            two training runs on a busy machine differ in the last bits.
        deterministic: Bit-identical weights of two training runs on equal machines: torch uses
            deterministic algorithms only, and a step uses all CPU cores where `threads` is unset.
            Slower; on a GPU torch raises an error for operations that have no such algorithm.
    """

    precision: Literal["auto", "bf16-mixed", "16-mixed", "32-true"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loader_workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    deterministic: bool = False


class Recipe(Config):
    """Settings of one training run; with the data set and the split they determine the model.

    Attributes:
        network: Architecture, encoder and preprocessing.
        flair_network: Second network for scans that lack a sequence, trained after the first one
            with the same sections, on the reference channel of all scans (FLAIR in the public
            set); the first one then learns from and predicts complete scans only. `None` uses one
            network for all scans.
        sampling: Slices of an optimizer step and of an epoch.
        augmentation: Random changes of slices and their strength.
        optimizer: Optimizer, loss and weight averaging.
        schedule: Epochs, learning-rate schedule and validation interval.
        compute: Device, precision and threads.
        seed: Seed of the initial weights, the sampling and the augmentation.
    """

    renamed: ClassVar[Mapping[str, str]] = _RENAMED
    removed: ClassVar[Mapping[str, str]] = _REMOVED

    network: Network = Network()
    flair_network: Network | None = None
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: Schedule = Schedule()
    compute: Compute = Compute()
    seed: int = Field(default=0, ge=0, lt=2**32)  # the CPU's generator takes 32 bits

    def augmentation_at(self, epoch: int) -> Augmentation:
        """Augmentation in an epoch, counted from 0: its phase's own, or the recipe's."""
        return self.schedule.phase_at(epoch).augmentation or self.augmentation

    def image_size_at(self, epoch: int) -> int:
        """Side in pixels of the training slices of an epoch, counted from 0."""
        return self.schedule.phase_at(epoch).image_size or self.network.image_size

    @property
    def whole_scans(self) -> bool:
        """True if `network` learns only from scans that have all sequences."""
        return self.flair_network is not None

    @model_validator(mode="after")
    def _policy_fits(self) -> Self:
        own = [phase.augmentation for phase in self.schedule.phases if phase.augmentation]
        if any(each.policy == "fastai" for each in (self.augmentation, *own)) and any(
            network.normalization != "imagenet" for network in self.networks.values()
        ):
            raise ValueError("augmentation.policy=fastai needs network.normalization=imagenet")
        return self

    @model_validator(mode="after")
    def _phases_are_no_larger(self) -> Self:
        side = min(network.image_size for network in self.networks.values())
        larger = [size for size in self.schedule.image_sizes if size > side]
        if larger:
            raise ValueError(
                f"a phase has image_size={max(larger)}, but the network's is {side}: slices are "
                "prepared at the network's size and would only be enlarged; use at most that"
            )
        return self

    @model_validator(mode="after")
    def _second_fits(self) -> Self:
        if self.flair_network and self.flair_network.sequences != "reference":
            raise ValueError("flair_network is for scans without the others: sequences=reference")
        fractions = {each.min_component_fraction: name for name, each in self.networks.items()}
        if len(fractions) > 1:
            given = " and ".join(f"{name} {value:g}" for value, name in fractions.items())
            raise ValueError(
                f"min_component_fraction has to be the same in both networks, not {given}"
            )
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """The networks to train, by the name of their section."""
        second = {"flair_network": self.flair_network} if self.flair_network else {}
        return {"network": self.network, **second}
