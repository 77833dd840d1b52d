"""Attempts at trainings in processes of their own, each of which may end itself by a signal.

All are forked from one that has imported what training needs. Not multiprocessing's own fork
server: there is one a process, and other tests may have started it before, without these imports.
"""

import functools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo  # by the first optimizer; here once for all attempts
from lightning.pytorch.callbacks import Callback

from components.shared.dataset.parts import SplitDataset
from components.shared.model.network import build_segmenter
from components.shared.storage.store import FolderStore
from components.train.checkpoints import Checkpoints
from components.train.data.slices import prepare_volumes
from components.train.fit import fit
from components.train.recipe import Recipe


@dataclass(frozen=True)
class End:
    """How an attempt ends: by a signal, at the nth time that it comes to a point."""

    point: Literal["step", "validation", "phase", "save"]
    nth: int
    signal: signal.Signals


class Server:
    """A process that forks another for each piece of work."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._asked, asked = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(asked,))
        self._process.start()
        asked.close()

    def run(self, work: Callable[..., None], arguments: tuple[object, ...]) -> int:
        """Runs one in a fork of its own and returns its exit code."""
        self._asked.send((work, arguments))
        status: int = self._asked.recv()
        return status

    def end(self) -> None:
        """Ends the process."""
        self._asked.close()
        self._process.join()


@dataclass
class Attempts:
    """Attempts at trainings with one recipe.

    Attributes:
        recipe: How to train.
        dataset: On what.
        folder: Where they leave what they have done.
        server: What they are forked from.
    """

    recipe: Recipe
    dataset: SplitDataset
    folder: Path
    server: Server

    def run(self, name: str, end: End | None = None) -> int:
        """Runs one and returns its exit code; it goes on where one of its name has ended."""
        self._log(name, "after").unlink(missing_ok=True)
        return self.server.run(_attempt, (self.recipe, self.dataset, self.folder, name, end))

    def begun_after_signal(self, name: str) -> list[str]:
        """Steps and volumes of a validation that the last attempt began after its signal."""
        log = self._log(name, "after")
        return log.read_text().split() if log.exists() else []

    def steps(self, name: str) -> list[int]:
        """The steps that the attempts at a training have done, in turn."""
        log = self._log(name, "steps")
        return [int(line) for line in log.read_text().splitlines()] if log.exists() else []

    def result(self, name: str) -> dict[str, Any]:
        """The history, and the best and last weights of a training that has ended."""
        result: dict[str, Any] = torch.load(self._log(name, "result"), weights_only=True)
        return result

    def _log(self, name: str, kind: str) -> Path:
        return self.folder / f"{name}.{kind}"


def _serve(asked: Connection) -> None:
    while True:
        try:
            work, arguments = asked.recv()
        except EOFError:
            return
        process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        process.start()
        process.join(120)
        asked.send(process.exitcode)
        process.kill()  # if it hangs


class _Points(Callback):
    """Comes to the points of an attempt and writes its steps down."""

    def __init__(self, end: End | None, phase_ends: Collection[int], files: Path) -> None:
        self._end = end
        self._phase_ends = phase_ends
        self._files = files
        self._times = 0
        self._signalled = False

    def reach(self, point: str) -> None:
        if self._end and point == self._end.point:
            self._times += 1
            if self._times == self._end.nth:
                self._signalled = True
                os.kill(os.getpid(), self._end.signal)

    def begin(self, work: str) -> None:
        if self._signalled:
            with open(self._files.with_suffix(".after"), "a") as stream:
                stream.write(f"{work}\n")

    def on_train_batch_start(self, *_):  # type: ignore[no-untyped-def]
        self.begin("step")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            with open(self._files.with_suffix(".steps"), "a") as stream:
                stream.write(f"{trainer.global_step}\n")
        self.reach("step")

    def on_validation_batch_start(self, *_):  # type: ignore[no-untyped-def]
        self.begin("volume")
        self.reach("validation")

    def on_train_epoch_end(self, trainer, *_):  # type: ignore[no-untyped-def]
        self.end_epoch(trainer.current_epoch + 1)

    def end_epoch(self, number):  # type: ignore[no-untyped-def]
        if number in self._phase_ends:
            self.reach("phase")


def _attempt(
    recipe: Recipe, dataset: SplitDataset, folder: Path, name: str, end: End | None
) -> None:
    torch.set_num_threads(1)
    points = _Points(end, recipe.schedule.phase_starts[1:-1], folder / name)
    _watch_saves(points)
    checkpoints = Checkpoints(dataset.store, name, folder / "work")
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    fitted = fit(
        recipe,
        segmenter,
        prepare_volumes(dataset, "train", segmenter),
        prepare_volumes(dataset, "validation", segmenter),
        checkpoints,
        lambda epoch: points.end_epoch(epoch["epoch"]),
        [points],
    )
    last = torch.load(checkpoints.last(), weights_only=True)["state_dict"]
    best = fitted.segmenter.state_dict()
    result = {"history": fitted.history, "last": last, "best": dict(best)}
    torch.save(result, folder / f"{name}.result")


def _watch_saves(points: _Points) -> None:
    """Makes points of what a save does: before and after each call, and within a file."""
    places = [(Checkpoints, "write_last"), (FolderStore, "upload"), (FolderStore, "write")]
    for owner, method in [*places, (FolderStore, "delete")]:
        setattr(owner, method, _watched(getattr(owner, method), points))

    def copy_in_halves(reading, writing):  # type: ignore[no-untyped-def]
        content = reading.read()
        writing.write(content[: len(content) // 2])
        writing.flush()
        points.reach("save")
        writing.write(content[len(content) // 2 :])

    shutil.copyfileobj = copy_in_halves


def _watched(method, points):  # type: ignore[no-untyped-def]
    @functools.wraps(method)
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        points.reach("save")
        result = method(*arguments, **options)
        points.reach("save")
        return result

    return call
