"""Everything that decides how a model is trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.shared.config import Config


class Recipe(Config):
    """Settings of one training; with the data set and the split they decide the model.

    Attributes:
        architecture: A decoder of `segmentation_models_pytorch`, e.g. `unet`, `fpn`.
        encoder: An encoder of `segmentation_models_pytorch`, e.g. `resnet18`.
        encoder_weights: `imagenet` downloads weights; `none` starts from random ones.
        encoder_depth: Stages of the encoder that are used; each halves the resolution.
        decoder_channels: Widths of the U-Net decoder's stages, as many as the encoder has;
            `None` is the library's.
        image_size: Side in pixels to which slices are resized inside the model.
        context_slices: Neighbours on each side that are shown to the network as channels.
        epochs: Passes over the sampled slices.
        batch_size: Slices a step, on each device.
        tumour_share: Share of sampled slices that hold tumour; all such slices are drawn
            once an epoch.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: AdamW's decoupled weight decay.
        rotation_degrees: Largest rotation of the augmentation, either way.
        scale_factor: Largest relative zoom of the augmentation, either way.
        intensity_shift: Largest change of a sequence's brightness (in standard deviations of the
            volume) and contrast (relative).
        missing_sequence_share: Share of slices whose pre- or post-contrast sequence is
            replaced by FLAIR, as in scans that lack it.
        validate_every_epochs: Most epochs between two validations; fewer where the last epoch
            would not be validated.
        precision: Arithmetic of the forward pass; weights stay float32.
        device: `cpu`, `cuda` or `auto`.
        loader_workers: Processes that read slices; 0 reads in the training process.
        threads: CPU threads of a step; `None` uses as many as are fastest at the time, so that
            trainings on a busy machine differ in the last bits.
        seed: Seed of weights, sampling and augmentation.
    """

    architecture: str = "unet"
    encoder: str = "resnet18"
    encoder_weights: Literal["imagenet", "none"] = "imagenet"
    encoder_depth: int = Field(default=5, ge=3, le=5)
    decoder_channels: tuple[int, ...] | None = None
    image_size: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    context_slices: int = Field(default=1, ge=0, le=3)
    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=32, ge=2)
    tumour_share: float = Field(default=0.6, gt=0.0, le=1.0)
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    rotation_degrees: float = Field(default=15.0, ge=0.0, le=180.0)
    scale_factor: float = Field(default=0.15, ge=0.0, lt=1.0)
    intensity_shift: float = Field(default=0.2, ge=0.0)
    missing_sequence_share: float = Field(default=0.1, ge=0.0, le=1.0)
    validate_every_epochs: int = Field(default=1, ge=1)
    precision: Literal["bf16-mixed", "16-mixed", "32-true"] = "bf16-mixed"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loader_workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _decoder_fits(self) -> Self:
        widths = self.decoder_channels
        if widths and not self.architecture.startswith("unet"):
            raise ValueError(f"decoder_channels are of the U-Net; {self.architecture} has none")
        if widths and len(widths) != self.encoder_depth:
            raise ValueError(f"{len(widths)} widths for {self.encoder_depth} stages")
        return self

    @property
    def validation_interval(self) -> int:
        """Epochs between two validations: at most as asked, and the last is validated."""
        longest = min(self.validate_every_epochs, self.epochs)
        return next(n for n in range(longest, 0, -1) if self.epochs % n == 0)
