"""One training process of a pod group; torchrun's agent starts it."""

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch.distributed import DistError

from components.shared.dataset.manifest import fetch_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import check_split, fetch_split
from components.shared.errors import UserError
from components.shared.process import step_process
from components.shared.storage.store import open_store
from components.train.distributed.processes import is_writer
from components.train.exit_codes import LOST_STATUS
from components.train.group.result import PROFILE, find_result, group_folder, store_result
from components.train.group.settings import Task
from components.train.recipe import Recipe
from components.train.training import train_model

logger = logging.getLogger(__name__)


# gloo's errors have no type (gloo/transport/tcp)
GLOO_WORDS = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


def main() -> None:
    """Train; the first process stores the result."""
    task = Task.model_validate_json(sys.argv[1])
    with (
        step_process("train") as process,
        _restarted(),
        tempfile.TemporaryDirectory() as outputs,
    ):
        train_task(task, cache=process.cache, outputs=Path(outputs))


def train_task(task: Task, *, cache: Path, outputs: Path) -> None:
    """Train and store the result, unless an earlier attempt has stored it."""
    store, training = open_store(task.store), task.training
    folder = group_folder(training)
    if find_result(store, folder):
        return
    manifest = fetch_manifest(store, training.dataset_id)
    split = fetch_split(store, training.split_id)
    check_split(split, manifest)
    report = outputs / PROFILE
    _fetch_report(store.uri, folder, report)
    run_id = train_model(
        Recipe.model_validate(training.recipe),
        SplitDataset(store, cache, manifest, split),
        pipeline_run=training.pipeline_run,
        label=training.label,
        run_name=task.run_name,
        profile_report=report,
        model=outputs / "model",
        history=outputs / "history.json",
    )
    if is_writer():
        store_result(
            store,
            folder,
            mlflow_run_id=run_id,
            model=outputs / "model",
            history=outputs / "history.json",
        )


def _fetch_report(store: str, folder: str, path: Path) -> None:
    try:
        open_store(store).download(f"{folder}/{PROFILE}", path)
    except KeyError as error:
        raise UserError(
            f"store {store}: {folder}/{PROFILE} is missing; the step that starts the pods stores "
            "it: run the step again"
        ) from error


@contextlib.contextmanager
def _restarted() -> Iterator[None]:
    """Exits with `LOST_STATUS` if another process is lost, which is no fault of this one."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, DistError) and not any(word in str(error) for word in GLOO_WORDS):
            raise
        logger.warning("another training process is lost (%s); all start another round", error)
        raise SystemExit(LOST_STATUS) from error


if __name__ == "__main__":
    main()
