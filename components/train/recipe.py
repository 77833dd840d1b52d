"""Everything that decides how a model is trained, in sections by what one thinks about."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.shared.config import Config


class Network(Config):
    """What is trained.

    Attributes:
        architecture: A decoder of `segmentation_models_pytorch`, e.g. `unet`, `fpn`.
        encoder: An encoder of `segmentation_models_pytorch`, e.g. `resnet18`.
        encoder_weights: `imagenet` downloads weights; `none` starts from random ones.
        encoder_depth: Stages of the encoder that are used; each halves the resolution.
        decoder_channels: Widths of the U-Net decoder's stages, as many as the encoder has;
            `None` is the library's.
        image_size: Side in pixels to which slices are resized inside the model.
        context_slices: Neighbours on each side that are shown to the network as channels
            (a 2.5D network).
    """

    architecture: str = "unet"
    encoder: str = "resnet18"
    encoder_weights: Literal["imagenet", "none"] = "imagenet"
    encoder_depth: int = Field(default=5, ge=3, le=5)
    decoder_channels: tuple[int, ...] | None = None
    image_size: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    context_slices: int = Field(default=1, ge=0, le=3)

    @model_validator(mode="after")
    def _decoder_fits(self) -> Self:
        widths = self.decoder_channels
        if widths and not self.architecture.startswith("unet"):
            raise ValueError(f"decoder_channels are of the U-Net; {self.architecture} has none")
        if widths and len(widths) != self.encoder_depth:
            raise ValueError(f"{len(widths)} widths for {self.encoder_depth} stages")
        return self


class Sampling(Config):
    """Which slices a step and an epoch see.

    Attributes:
        batch_size: Slices a step, on each device.
        tumour_share: Share of sampled slices that hold tumour (foreground oversampling); all
            such slices are drawn once an epoch.
    """

    batch_size: int = Field(default=32, ge=2)
    tumour_share: float = Field(default=0.6, gt=0.0, le=1.0)


class Augmentation(Config):
    """How far slices are changed at random.

    Attributes:
        rotation_degrees: Largest rotation, either way.
        scale_factor: Largest relative zoom, either way.
        intensity_shift: Largest change of a sequence's brightness (in standard deviations of the
            volume) and contrast (relative).
        missing_sequence_share: Share of slices whose pre- or post-contrast sequence is
            replaced by FLAIR, as in scans that lack it (modality dropout).
    """

    rotation_degrees: float = Field(default=15.0, ge=0.0, le=180.0)
    scale_factor: float = Field(default=0.15, ge=0.0, lt=1.0)
    intensity_shift: float = Field(default=0.2, ge=0.0)
    missing_sequence_share: float = Field(default=0.1, ge=0.0, le=1.0)


class Optimiser(Config):
    """AdamW under a one-cycle schedule of the learning rate.

    Attributes:
        learning_rate: Peak of the one-cycle schedule.
        find_learning_rate: Whether the peak is searched before the training begins, and
            `learning_rate` left aside.
        weight_decay: AdamW's decoupled weight decay.
    """

    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    find_learning_rate: bool = False
    weight_decay: float = Field(default=1e-2, ge=0.0)


class Schedule(Config):
    """How long a training is and how often it is validated.

    Attributes:
        epochs: Passes over the sampled slices.
        validate_every_epochs: Most epochs between two validations; fewer where the last epoch
            would not be validated.
    """

    epochs: int = Field(default=40, ge=1)
    validate_every_epochs: int = Field(default=1, ge=1)

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
    """

    precision: Literal["bf16-mixed", "16-mixed", "32-true"] = "bf16-mixed"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loader_workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)


class Recipe(Config):
    """Settings of one training; with the data set and the split they decide the model.

    Attributes:
        network: What is trained.
        sampling: Which slices a step and an epoch see.
        augmentation: How far slices are changed at random.
        optimiser: How weights follow the loss.
        schedule: How long, and how often validated.
        compute: On what.
        seed: Of the initial weights, the sampling and the augmentation alike, so it is in no
            section.
    """

    network: Network = Network()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    compute: Compute = Compute()
    seed: int = Field(default=0, ge=0, lt=2**32)  # the CPU's generator takes 32 bits
