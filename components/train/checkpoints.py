"""The state of a training, kept in the store so that another attempt goes on from it."""

import contextlib
import logging
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lightning
import torch
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.shared.config import Record
from components.shared.errors import UserError
from components.shared.storage.store import Store, explain_disk, file_digest
from components.train.distributed.processes import rank

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]

_SHORT = "memory-is-short"
_STATES_KEPT = 2  # the newest, and the one to go back to if that is damaged
_STATE_FILE = re.compile(r"state-\d+-\d+\.json")


class State(Record):
    """The content of `state-EPOCH-STEPS.json`: the files of a state, each named by its digest.

    Attributes:
        epoch: After which it was stored.
        steps: Of the next epoch, that were done as well.
        last: The whole state of the training, `<sha256>.ckpt`.
        best: Weights of the best epoch until then, `<sha256>.safetensors`; `None` before the
            first validation.
    """

    epoch: int
    steps: int = 0
    last: str = Field(pattern=r"^[0-9a-f]{64}\.ckpt$")
    best: str | None = Field(pattern=r"^[0-9a-f]{64}\.safetensors$")

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f" and {self.steps} steps" if self.steps else "")

    @property
    def name(self) -> str:
        """Of its file; the names of a training's states are in the order of time."""
        return f"state-{self.epoch:06d}-{self.steps:06d}.json"

    @property
    def files(self) -> frozenset[str]:
        """Names of all that it needs in the store."""
        return frozenset(name for name in (self.name, self.last, self.best) if name)


class Checkpoints:
    """The newest states of one training.

    A state's JSON file names what belongs to it and is written when that is whole: an attempt
    that is killed in between leaves the state before, never the best of one history beside the
    last of another. A file whose content is not what its name says is never loaded, and none is
    whose loading would run code: who can write to the store can give that its right name.

    Args:
        store: Where they outlive the machine.
        prefix: Folder in the store, equal in every attempt at the training.
        folder: Local folder for the files in work.
    """

    def __init__(self, store: Store, prefix: str, folder: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._folder = folder / prefix / f"rank-{rank()}"
        self._states: tuple[State, ...] = ()
        self._waste = frozenset[str]()  # files that no state needs, or a damaged one
        with explain_disk(f"folder {folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> State | None:
        """The newest state in the store, whole or not; `None` where there is none."""
        return next(iter(self._listed()), None)

    def is_memory_short(self) -> bool:
        """Whether an attempt before has told so."""
        try:
            self._store.read(self._key(_SHORT))
        except KeyError:
            return False
        return True

    def tell_memory_short(self) -> None:
        """Leaves to all further attempts that the memory does not suffice for the recipe's step."""
        self._store.write(self._key(_SHORT), b"")

    def last(self) -> Path | None:
        """Fetches the newest whole state; `None` where there is none, as at the first attempt."""
        names = frozenset(filter(_is_of_a_state, self._names()))  # first: more may come meanwhile
        self._states = self._listed()
        self._waste = names - _files_of(self._states)
        while self._states:
            newest, *older = self._states
            try:
                if newest.best:
                    self._fetch(newest.best)
                last = self._fetch(newest.last)
                _refuse_code(last)
                return last
            except _DamagedError as error:
                before = older[0] if older else "the start"
                logger.warning(
                    "the state after %s is not used: %s; trying %s", newest, error, before
                )
                self._states = tuple(older)
                self._waste |= newest.files
        return None

    def write_last(self, trainer: lightning.Trainer) -> None:
        """Writes the training's state to the local folder; all its processes take part."""
        with explain_disk(f"folder {self._folder}"):
            trainer.save_checkpoint(self._folder / "last.ckpt", weights_only=False)

    def store(self, *, epoch: int, steps: int = 0, best: Weights | None) -> None:
        """Stores what `write_last` wrote, beside the best weights.

        Args:
            epoch: That ended.
            steps: Of the next one, that are done as well.
            best: Its weights if it is the best so far; those stored before stay otherwise.
        """
        best_before = self._states[0].best if self._states else None
        state = State(
            epoch=epoch,
            steps=steps,
            last=self._upload("last.ckpt"),
            best=self._upload_weights(best) if best else best_before,
        )
        self._store.write(self._key(state.name), state.model_dump_json().encode())
        older = [other for other in self._states if other.name != state.name]
        self._states = (state, *older)[:_STATES_KEPT]
        self._remove_older()

    def load_best(self, network: nn.Module) -> None:
        """Puts the weights of the best epoch into the network.

        Raises:
            UserError: If they are damaged in the store.
        """
        try:
            path = self._fetch(next(state.best for state in self._listed() if state.best))
        except (_DamagedError, StopIteration) as error:
            raise UserError(
                f"the weights of the best epoch are lost from {self._store.uri}/{self._prefix} "
                f"({error}); start the run again: it goes on from the newest whole state"
            ) from error
        network.load_state_dict(load_file(path))

    def remove_local(self) -> None:
        """Deletes the local files; those in the store stay until the pipeline run is over."""
        shutil.rmtree(self._folder)
        with contextlib.suppress(OSError):  # another process still has files beside
            self._folder.parent.rmdir()

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _listed(self) -> tuple[State, ...]:
        """All states in the store, newest first."""
        names = filter(_STATE_FILE.fullmatch, self._names())
        return tuple(state for name in sorted(names, reverse=True) if (state := self._read(name)))

    def _names(self) -> Iterator[str]:
        for key in self._store.keys(f"{self._prefix}/"):
            yield key.removeprefix(f"{self._prefix}/")

    def _read(self, name: str) -> State | None:
        try:
            return State.model_validate_json(self._store.read(self._key(name)))
        except KeyError:  # deleted since it was listed
            return None
        except ValidationError:
            logger.warning("a stored state is not used: %s is damaged", name)
            return None

    def _fetch(self, name: str) -> Path:
        path = self._folder / name
        if _is_whole(path):
            return path
        try:
            self._store.download(self._key(name), path)
        except KeyError as error:
            raise _DamagedError(f"{name} is missing") from error
        if not _is_whole(path):
            raise _DamagedError(f"{name} is damaged")
        return path

    def _upload(self, written: str) -> str:
        path = self._folder / written
        name = file_digest(path) + path.suffix
        path = path.rename(self._folder / name)
        self._store.upload(path, self._key(name))
        return name

    def _upload_weights(self, weights: Weights) -> str:
        plain = {name: value.contiguous() for name, value in weights.items()}
        with explain_disk(f"folder {self._folder}"):
            save_file(plain, self._folder / "best.safetensors")
        return self._upload("best.safetensors")

    def _remove_older(self) -> None:
        """Deletes states before those kept with what is theirs alone, and what an end cut off.

        A state that is further is another attempt's, begun while this one still ran on a node that
        was cut off; so are files that have come since.
        """
        listed = self._listed()
        newest = self._states[0].name
        further = [s for s in listed if s.name > newest and s.name not in self._waste]
        own = _files_of(self._states)
        gone = (self._waste | _files_of(listed)) - own - _files_of(further)
        for name in sorted(gone, reverse=True):  # state-... before what it names by digests
            self._store.delete(self._key(name))
        self._waste = frozenset()
        for path in self._folder.iterdir():
            if path.name not in own:
                path.unlink()


class _DamagedError(Exception):
    """A stored file is not what its name says, or no state."""


def _files_of(states: Iterable[State]) -> frozenset[str]:
    return frozenset[str]().union(*(state.files for state in states))


def _is_of_a_state(name: str) -> bool:
    is_content = "/" not in name and name.endswith((".ckpt", ".safetensors"))
    return is_content or bool(_STATE_FILE.fullmatch(name))


def _is_whole(path: Path) -> bool:
    return path.exists() and file_digest(path) == path.stem


def _refuse_code(path: Path) -> None:
    """Makes sure that a state is loaded by tensors and plain values alone; reads no tensor."""
    try:
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    # torch's refusals: of what is in its format, of other formats; the rest of what is no pickle
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError) as error:
        raise _DamagedError(f"{path.name} holds code, or is no state") from error
