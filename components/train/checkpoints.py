"""States of a training run in the store, from which the next attempt resumes."""

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
_STATE_FILE = re.compile(r"state-\d+\.json")


class State(Record):
    """Content of `state-EPOCH.json`: the files of a state, each named by its digest.

    Attributes:
        epoch: Number of completed epochs.
        last: File of the whole state, `<sha256>.ckpt`.
        best: File of the best weights so far, `<sha256>.safetensors`; `None` before the first
            validation.
    """

    epoch: int
    last: str = Field(pattern=r"^[0-9a-f]{64}\.ckpt$")
    best: str | None = Field(pattern=r"^[0-9a-f]{64}\.safetensors$")

    def __str__(self) -> str:
        return f"epoch {self.epoch}"

    @property
    def name(self) -> str:
        """File name; names sort chronologically."""
        return f"state-{self.epoch:06d}.json"

    @property
    def files(self) -> frozenset[str]:
        """Names of all its files in the store."""
        return frozenset(name for name in (self.name, self.last, self.best) if name)


class Checkpoints:
    """The newest states of one training run.

    A state's JSON file names its other files and is written after them. An attempt that is
    killed in between leaves the previous state, and never mixes the files of two. A file is
    loaded only if its content matches the digest in its name and loading it runs no code:
    whoever can write to the store can also name a file correctly.

    Args:
        store: Store of the files.
        prefix: Folder in the store, equal in every attempt.
        folder: Local folder for temporary files.
    """

    def __init__(self, store: Store, prefix: str, folder: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._folder = folder / prefix / f"rank-{rank()}"
        self._states: tuple[State, ...] = ()
        self._unused = frozenset[str]()  # files that no state needs, or only a damaged one
        with explain_disk(f"folder {folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> State | None:
        """Returns the newest state in the store, even if damaged; `None` if there is none."""
        return next(iter(self._listed()), None)

    def is_memory_short(self) -> bool:
        """Returns whether an earlier attempt has marked the memory as short."""
        try:
            self._store.read(self._key(_SHORT))
        except KeyError:
            return False
        return True

    def mark_memory_short(self) -> None:
        """Records for later attempts that the recipe's step does not fit into memory."""
        self._store.write(self._key(_SHORT), b"")

    def last(self) -> Path | None:
        """Fetches the newest undamaged state; `None` if there is none."""
        names = frozenset(filter(_belongs_to_state, self._names()))  # first: more may be added
        self._states = self._listed()
        self._unused = names - _files_of(self._states)
        while self._states:
            newest, *older = self._states
            try:
                if newest.best:
                    self._fetch(newest.best)
                last = self._fetch(newest.last)
                _refuse_code(last)
                return last
            except _DamagedError as error:
                previous = older[0] if older else "the start"
                logger.warning(
                    "the state after %s is not used: %s; trying %s", newest, error, previous
                )
                self._states = tuple(older)
                self._unused |= newest.files
        return None

    def write_last(self, trainer: lightning.Trainer) -> None:
        """Writes the state to the local folder; called by all processes."""
        with explain_disk(f"folder {self._folder}"):
            trainer.save_checkpoint(self._folder / "last.ckpt", weights_only=False)

    def store(self, *, epoch: int, best: Weights | None) -> None:
        """Stores the state that `write_last` wrote, with the best weights.

        Args:
            epoch: Number of completed epochs.
            best: Weights of the epoch if it is the best so far; `None` keeps the stored ones.
        """
        best_before = self._states[0].best if self._states else None
        state = State(
            epoch=epoch,
            last=self._upload("last.ckpt"),
            best=self._upload_weights(best) if best else best_before,
        )
        self._store.write(self._key(state.name), state.model_dump_json().encode())
        self._states = (state, *self._states)[:_STATES_KEPT]
        self._remove_older()

    def load_best(self, network: nn.Module) -> None:
        """Loads the weights of the best epoch into the network.

        Raises:
            UserError: If they are damaged in the store.
        """
        try:
            path = self._fetch(next(state.best for state in self._listed() if state.best))
        except (_DamagedError, StopIteration) as error:
            raise UserError(
                f"the weights of the best epoch are lost from {self._store.uri}/{self._prefix} "
                f"({error}); start the run again: it resumes from the newest undamaged state"
            ) from error
        network.load_state_dict(load_file(path))

    def remove_local(self) -> None:
        """Deletes the local files; those in the store stay until the pipeline run ends."""
        shutil.rmtree(self._folder)
        with contextlib.suppress(OSError):  # another process still has files there
            self._folder.parent.rmdir()

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _listed(self) -> tuple[State, ...]:
        """Returns all states in the store, newest first."""
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
        """Deletes older states with their files, and files of interrupted uploads.

        A state that is further belongs to another attempt, which began while this one still ran on
        an unreachable node. So do files added since.
        """
        listed = self._listed()
        newest = self._states[0].name
        further = [s for s in listed if s.name > newest and s.name not in self._unused]
        own = _files_of(self._states)
        unneeded = (self._unused | _files_of(listed)) - own - _files_of(further)
        for name in sorted(unneeded, reverse=True):  # state-... before the files that it names
            self._store.delete(self._key(name))
        self._unused = frozenset()
        for path in self._folder.iterdir():
            if path.name not in own:
                path.unlink()


class _DamagedError(Exception):
    """A stored file does not match its name, or is not a state."""


def _files_of(states: Iterable[State]) -> frozenset[str]:
    return frozenset[str]().union(*(state.files for state in states))


def _belongs_to_state(name: str) -> bool:
    is_content = "/" not in name and name.endswith((".ckpt", ".safetensors"))
    return is_content or bool(_STATE_FILE.fullmatch(name))


def _is_whole(path: Path) -> bool:
    return path.exists() and file_digest(path) == path.stem


def _refuse_code(path: Path) -> None:
    """Refuses a state whose loading would run code; reads no tensor."""
    try:
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    # torch's refusals: of its own format, of other formats; the others of what is no pickle
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError) as error:
        raise _DamagedError(f"{path.name} holds code, or is no state") from error
