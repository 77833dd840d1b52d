"""Everything that decides how a model is trained, in sections by what one thinks about."""

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.shared.config import Config
from components.shared.model.settings import Network

_RENAMED = {
    "optimiser": "optimizer",
    "course": "lr_schedule",
    "warm_up": "warmup_fraction",
    "rate_factor": "lr_factor",
    "keep": "checkpoint",
    "tumour_share": "foreground_fraction",
    "shading": "bias_field",
    "missing_sequence_share": "modality_dropout_prob",
    "carvemix_share": "carvemix_prob",
    "sizes": "custom",  # augmentation.policy
    "normalisation": "normalization",
    "min_component_share": "min_component_fraction",
}
"""Former names of settings, and of one value, with the present ones."""

_REMOVED = {"compile": "torch.compile gained nothing where it was measured; leave the setting out"}


class Sampling(Config):
    """Which slices a step and an epoch see.

    Attributes:
        batch_size: Slices an optimizer step, over all devices together.
        accumulate: Micro-batches in which each device takes its part of a step, one after the
            other, for as many times less memory. Batch normalization and the Dice part of the
            loss are those of one micro-batch, on all devices.
        foreground_fraction: Share of sampled slices that hold tumour (foreground oversampling); all
            such slices are drawn once an epoch.
    """

    batch_size: int = Field(default=32, ge=2)
    accumulate: int = Field(default=1, ge=1)
    foreground_fraction: float = Field(default=0.6, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> Self:
        parts = self.accumulate  # more where several processes train; they check that themselves
        if self.batch_size % parts or self.batch_size < 2 * parts:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared out: accumulate={parts} needs a "
                f"multiple of {parts}, at least {2 * parts}"
            )
        return self


class Augmentation(Config):
    """How far slices are changed at random.

    Attributes:
        policy: `custom` turns, zooms, mirrors, bends, brightens, shades and sharpens as the other
            settings say; `fastai` is that library's default for photographs, asks for ImageNet
            normalization and takes no other of these settings but `carvemix_prob`.
        rotation_degrees: Largest rotation, either way.
        scale_factor: Largest relative zoom, either way.
        intensity_shift: Largest change of a sequence's brightness (in standard deviations of the
            volume) and contrast (relative).
        elastic_shift: Largest displacement of a smooth random field, as a share of the side.
        gamma: Largest exponent, and one over the least, to which a slice's intensities between
            their least and largest are raised.
        sharpness_shift: How far a slice is blurred or sharpened at most: the share of its
            difference to a copy of half the resolution that is taken off or added.
        bias_field: Largest factor, less one, of a smooth random field by which a sequence's
            intensities above the least are multiplied or divided, as by the coil's bias field.
        modality_dropout_prob: Share of slices whose pre- or post-contrast sequence is
            replaced by FLAIR, as in scans that lack it (modality dropout).
        carvemix_prob: Share of slices into which the tumour of another one is pasted with a
            margin around it (CarveMix), under both policies and before the other changes.
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
            raise ValueError(f"policy=fastai does not take {', '.join(changed)}")
        return self


class OptimizerSettings(Config):
    """How weights follow the loss.

    Attributes:
        method: `adamw`, or `muon`: a convolution's steps have singular values that are all alike
            (Jordan et al. 2024), and the size of AdamW's; biases, norms and the output go by AdamW.
        learning_rate: Peak of the schedule.
        find_learning_rate: Whether the peak of the first phase is searched before the training
            begins, for each network, and `learning_rate` left aside.
        encoder_factor: The encoder's rate is that of the rest times this (discriminative
            learning rates).
        weight_decay: Decoupled weight decay, as AdamW's.
        gradient_clip: Largest norm of the gradient; `None` leaves it. Of little influence with
            `muon`, whose steps have one size.
        loss: `bce` is the cross-entropy of pixels, `dice` one minus the Dice of the batch;
            `bce+dice` their sum.
        ema_decay: Share of the old in the moving average of the weights, which is what is
            validated and exported; `None` takes the weights themselves.
    """

    method: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    find_learning_rate: bool = False
    encoder_factor: float = Field(default=1.0, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    gradient_clip: float | None = Field(default=None, gt=0.0)
    loss: Literal["bce+dice", "dice", "bce"] = "bce+dice"
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)


class Phase(Config):
    """A part of a training with a schedule of the learning rate of its own.

    Attributes:
        length: Of the phase, relative to the others.
        image_size: Side in pixels of what is learned from; `None` is the network's. Validated is
            what would be exported: at the network's size.
        freeze_encoder: The encoder's weights stay, but for its batch normalization.
        lr_factor: The peak is the optimizer's learning rate times this.
        encoder_factor: As the optimizer's; `None` takes that.
        augmentation: As the recipe's section, in its place; `None` takes that.
    """

    length: float = Field(default=1.0, gt=0.0)
    image_size: int | None = Field(default=None, ge=32, le=1024, multiple_of=32)
    freeze_encoder: bool = False
    lr_factor: float = Field(default=1.0, gt=0.0, le=1.0)
    encoder_factor: float | None = Field(default=None, gt=0.0, le=1.0)
    augmentation: Augmentation | None = None


class Schedule(Config):
    """How long a training is, how its learning rate goes and how often it is validated.

    Attributes:
        epochs: Passes over the sampled slices, in all phases together.
        phases: Divide the epochs, each with its own course of the learning rate.
        lr_schedule: Of the learning rate: `one_cycle` warms up, falls and moves the momentum
            against it; `cosine` warms up and falls.
        warmup_fraction: Share of a phase until the peak.
        validate_every_epochs: Most epochs between two validations; fewer where the last epoch
            would not be validated.
        patience: Validations without a better one, in the last phase, after which the training
            ends; `None` goes to the end.
        checkpoint: What is exported: the weights of the `best` epoch of the last phase, by
            validation Dice, or those of the `last` epoch.
        store_every_s: Time between two stored states; 0 stores after every step. A kill without
            warning costs no more, but for the time to store and for the validation at hand:
            within one only SIGTERM has the state stored.
    """

    epochs: int = Field(default=40, ge=1)
    phases: tuple[Phase, ...] = Field(default=(Phase(),), min_length=1)
    lr_schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    warmup_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    validate_every_epochs: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    checkpoint: Literal["best", "last"] = "best"
    store_every_s: float = Field(default=240.0, ge=0.0)  # five minutes with what is said above

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if any(first >= end for first, end in pairwise(self.phase_starts)):
            raise ValueError(f"{len(self.phases)} phases do not fit into {self.epochs} epochs")
        return self

    @property
    def phase_starts(self) -> tuple[int, ...]:
        """The first epoch of each phase, from 0, and behind them the number of epochs."""
        ends = accumulate((phase.length for phase in self.phases), initial=0.0)
        total = sum(phase.length for phase in self.phases)
        return tuple(round(self.epochs * end / total) for end in ends)

    @property
    def image_sizes(self) -> frozenset[int]:
        """Sides in pixels of what phases learn from, where they have one of their own."""
        return frozenset(phase.image_size for phase in self.phases if phase.image_size)

    def phase_at(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        return self.phases[min(bisect(self.phase_starts, epoch), len(self.phases)) - 1]

    @property
    def validation_interval(self) -> int:
        """Epochs between two validations: at most as asked, and the last is validated."""
        longest = min(self.validate_every_epochs, self.epochs)
        return next(n for n in range(longest, 0, -1) if self.epochs % n == 0)


class Compute(Config):
    """On what a training runs.

    Attributes:
        precision: Arithmetic of the forward pass; weights stay float32.
        device: `cpu`, `cuda` or `auto`.
        loader_workers: Processes that read slices; 0 reads in the training process.
        threads: CPU threads of a step; `None` uses as many as are fastest at the time, so that
            trainings on a busy machine differ in the last bits.
        deterministic: Whether two trainings on equal machines end with equal weights, bit for
            bit: torch takes deterministic algorithms only, and where `threads` is unset a step
            uses all CPU cores, whatever is fastest. Slower; on a GPU some networks have
            operations for which torch has no such algorithm, and it says so.
    """

    precision: Literal["bf16-mixed", "16-mixed", "32-true"] = "bf16-mixed"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loader_workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    deterministic: bool = False


class Recipe(Config):
    """Settings of one training; with the data set and the split they decide the model.

    Attributes:
        network: What is trained.
        flair_network: A second network for scans that lack a sequence, trained after the first
            one by the same sections, on the FLAIR of all scans; the first one then learns from,
            and predicts, whole scans only. `None`: one network takes all.
        sampling: Which slices a step and an epoch see.
        augmentation: How far slices are changed at random.
        optimizer: How weights follow the loss.
        schedule: How long, and how often validated.
        compute: On what.
        seed: Of the initial weights, the sampling and the augmentation alike, so it is in no
            section.
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
        """That of an epoch, counted from 0: its phase's own, or the recipe's."""
        return self.schedule.phase_at(epoch).augmentation or self.augmentation

    def image_size_at(self, epoch: int) -> int:
        """Side in pixels of the slices that an epoch, counted from 0, learns from."""
        return self.schedule.phase_at(epoch).image_size or self.network.image_size

    @property
    def whole_scans(self) -> bool:
        """Whether `network` learns from scans that have all sequences only."""
        return self.flair_network is not None

    @model_validator(mode="after")
    def _policy_fits(self) -> Self:
        own = [phase.augmentation for phase in self.schedule.phases if phase.augmentation]
        if any(each.policy == "fastai" for each in (self.augmentation, *own)) and any(
            network.normalization != "imagenet" for network in self.networks.values()
        ):
            raise ValueError("augmentation.policy=fastai takes network.normalization=imagenet")
        return self

    @model_validator(mode="after")
    def _second_fits(self) -> Self:
        if self.flair_network and self.flair_network.sequences != "flair":
            raise ValueError("flair_network is for scans without the others: sequences=flair")
        fractions = {each.min_component_fraction: name for name, each in self.networks.items()}
        if len(fractions) > 1:
            given = " and ".join(f"{name} {value:g}" for value, name in fractions.items())
            raise ValueError(
                f"min_component_fraction has to be the same in both networks, not {given}"
            )
        return self

    @property
    def networks(self) -> dict[str, Network]:
        """What is trained, by the name of its section."""
        second = {"flair_network": self.flair_network} if self.flair_network else {}
        return {"network": self.network, **second}
