"""The learning-rate finder: a trial run whose learning rate rises at each step."""

import copy
import itertools
import logging
import math
import signal
import statistics
import threading
from collections.abc import Callable, Sequence

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import ValidationError
from torch import Tensor

from components.shared.errors import UserError
from components.shared.model.network import VolumeSegmenter
from components.shared.report.learning_rate import LearningRateSearch, Suggestion
from components.shared.storage.store import Store
from components.train.checkpoints import Checkpoints
from components.train.data.slices import PreparedVolume
from components.train.distributed.processes import is_writer
from components.train.fit import rehearse
from components.train.memory import within_memory
from components.train.recipe import Recipe, Sampling

logger = logging.getLogger(__name__)

STEPS = 100

_LOWEST, _HIGHEST = 1e-7, 1.0  # fastai's lowest; no recipe may have a higher one
_SMOOTHING = 0.9  # with fastai's 0.98 the curve lags behind by a third of the range
_DIVERGED = 4.0  # times the best smoothed loss
_DEPTH = 2.0  # of noise, one in a thousand sweeps falls by 1.5 times that between two batches
_BEGINNING = STEPS // 10  # the first steps' loss is hardly smoothed
_KEY = "learning_rate_search.json"


def search_learning_rate(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    train: Sequence[PreparedVolume],
    checkpoints: Checkpoints | None = None,
) -> LearningRateSearch:
    """Trains a copy of a segmenter for `STEPS` steps and finds where its loss falls.

    L. N. Smith, Cyclical learning rates for training neural networks (2017), section 3.3, with
    the number of steps and the stop at divergence of fastai's `lr_find`. The segmenter and the
    random state do not change, and the recipe's own learning rate has no effect. Several processes
    search together and get the same result.

    Raises:
        UserError: If the device is missing, no slice has tumour, or the memory does not suffice.
    """
    logger.info("searching the learning rate in %d steps", STEPS)
    # every epoch has a step; the network stays as the first phase has it
    first = recipe.schedule.phases[:1]
    schedule = recipe.schedule.model_copy(update={"epochs": STEPS, "phases": first})

    def attempt(sampling: Sampling) -> LearningRateSearch:
        used = recipe.model_copy(update={"schedule": schedule, "sampling": sampling})
        sweep = LearningRateSweep()
        with isolate_rng():
            rehearse(used, copy.deepcopy(segmenter), train, sweep)
        return judge_sweep(sweep.learning_rates, sweep.losses)

    return within_memory(attempt, recipe.sampling, checkpoints)


def search_once(
    store: Store, folder: str, search: Callable[[], LearningRateSearch]
) -> LearningRateSearch:
    """Returns the result in the run's folder, of an earlier attempt at it, or searches.

    All processes of the run search, or none.
    """
    key = f"{folder}/{_KEY}"
    try:
        return LearningRateSearch.model_validate_json(store.read(key))
    except KeyError:
        pass
    except ValidationError:
        logger.warning("the stored learning-rate search is damaged; searching again")
    found = search()
    if is_writer():
        store.write(key, found.model_dump_json().encode())
    return found


def with_found_rate(recipe: Recipe, search: LearningRateSearch) -> Recipe:
    """Returns the recipe whose first phase peaks at the learning rate that was found.

    Raises:
        UserError: If none was found.
    """
    if search.suggestion is None:
        raise UserError(
            f"{search.reason} Check the masks and train.augmentation, or train with "
            f"learning_rate={recipe.optimizer.learning_rate:g} by "
            "train.optimizer.find_learning_rate=false"
        )
    rate = search.suggestion.learning_rate / recipe.schedule.phases[0].lr_factor
    optimizer = recipe.optimizer.model_copy(update={"learning_rate": rate})
    return recipe.model_copy(update={"optimizer": optimizer})


# Not Lightning's own finder (2.6): it uses one learning rate for all groups of parameters, removes
# our callbacks, writes a pickle into the working folder, prints a progress bar into the log, and
# suggests the steepest point on a linear scale of the learning rate, which favors low ones.
class LearningRateSweep(Callback):
    """Raises the learning rate exponentially from step to step and records the losses.

    Groups of parameters keep the ratios of their learning rates; the highest one is searched for.
    Training stops after the last step, or when the loss diverges.

    Attributes:
        learning_rates: Learning rate of each step so far.
        losses: Loss of each step's batch, the mean over all processes.
    """

    def __init__(self) -> None:
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self._parts: list[float] = []  # losses of the current step's micro-batches
        self._ratios: list[float] = []

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Replaces the schedule."""
        trainer.lr_scheduler_configs.clear()
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self._ratios = [rate / max(rates) for rate in rates]
        if threading.current_thread() is threading.main_thread():
            # nothing has to be saved, and Lightning's own handler exits with status 0
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Sets the step's learning rate."""
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = _rate(trainer.global_step) * ratio

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _: object, outputs: object, *__: object
    ) -> None:
        """Records the step's loss and stops where it diverges."""
        assert isinstance(outputs, dict)
        loss = trainer.strategy.reduce(outputs["loss"], reduce_op="mean")
        assert isinstance(loss, Tensor)
        self._parts.append(float(loss))
        if trainer.global_step > len(self.losses):
            self.learning_rates.append(_rate(len(self.losses)))
            self.losses.append(sum(self._parts))  # Lightning has divided each by their number
            self._parts.clear()
            smoothed = _smooth(self.losses)
            diverges = not smoothed[-1] <= _DIVERGED * min(smoothed)  # true for NaN too
            trainer.should_stop = len(self.losses) == STEPS or diverges


def judge_sweep(learning_rates: Sequence[float], losses: Sequence[float]) -> LearningRateSearch:
    """Chooses a learning rate by the rule that fastai calls "valley".

    The valley is the longest falling sequence of smoothed losses after the first tenth; the
    suggestion is its middle on the logarithmic scale (`valley` in fastai/callback/schedule.py at
    2.8). A fall within the noise between batches does not count, nor does any loss after one that
    is not finite. The learning rates rise by a constant factor.
    """
    finite = list(itertools.takewhile(math.isfinite, losses))
    rates, smoothed = learning_rates[: len(finite)], _smooth(finite)
    place = _valley(finite, smoothed)
    suggestion = _suggest(rates, smoothed, *place) if place else None
    return LearningRateSearch(
        learning_rates=tuple(rates),
        losses=tuple(finite),
        smoothed=tuple(smoothed),
        suggestion=suggestion,
        reason=_reason(suggestion) if suggestion else _no_suggestion(rates),
    )


def _valley(losses: Sequence[float], smoothed: Sequence[float]) -> tuple[int, int] | None:
    if len(losses) <= _BEGINNING:
        return None
    first, last = (_BEGINNING + place for place in _longest_fall(smoothed[_BEGINNING:]))
    noise = statistics.median(abs(after - before) for before, after in itertools.pairwise(losses))
    return (first, last) if smoothed[first] - smoothed[last] > _DEPTH * noise else None


def _longest_fall(losses: Sequence[float]) -> tuple[int, int]:
    """First and last index of the longest falling subsequence."""
    lengths: list[int] = []
    for place, loss in enumerate(losses):
        before = (lengths[i] for i in range(place) if losses[i] > loss)
        lengths.append(1 + max(before, default=0))
    last = lengths.index(max(lengths))
    return last + 1 - lengths[last], last


def _suggest(
    rates: Sequence[float], smoothed: Sequence[float], first: int, last: int
) -> Suggestion:
    steps = [after - before for before, after in itertools.pairwise(smoothed[first : last + 1])]
    return Suggestion(
        learning_rate=float(f"{math.sqrt(rates[first] * rates[last]):.2g}"),
        valley=(rates[first], rates[last]),
        valley_losses=(smoothed[first], smoothed[last]),
        steepest=rates[first + steps.index(min(steps))],
    )


def _reason(suggestion: Suggestion) -> str:
    low, high = suggestion.valley
    before, after = suggestion.valley_losses
    return (
        f"The smoothed loss falls from {before:.2f} to {after:.2f} while the learning rate rises "
        f"from {low:.1g} to {high:.1g}; the middle of that on the logarithmic scale is "
        f"{suggestion.learning_rate:.2g}. It falls most steeply at {suggestion.steepest:.2g}."
    )


def _no_suggestion(rates: Sequence[float]) -> str:
    if len(rates) <= _BEGINNING:
        return f"No learning rate is suggested: NaN or infinite loss after {len(rates)} steps."
    return (
        "No learning rate is suggested: from "
        f"{rates[0]:.1g} to {rates[-1]:.1g} the loss falls by no more than its noise."
    )


def _rate(step: int) -> float:
    return _LOWEST * math.pow(_HIGHEST / _LOWEST, step / (STEPS - 1))


def _smooth(losses: Sequence[float]) -> list[float]:
    """Exponential means with bias correction, as in Adam."""
    smoothed, mean = [], 0.0
    for count, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smoothed.append(mean / (1 - _SMOOTHING**count))
    return smoothed
