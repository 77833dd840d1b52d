"""Where a training keeps its state until the pipeline run is over."""

from components.shared.storage.store import Store


def state_folder(mlflow_run_id: str) -> str:
    """The store's folder for the checkpoints of a pipeline run's training."""
    return f"checkpoints/{mlflow_run_id}/"


def remove_state(store: Store, mlflow_run_id: str) -> None:
    """Deletes the checkpoints: the run is over and its model is registered."""
    for key in list(store.keys(state_folder(mlflow_run_id))):
        store.delete(key)
