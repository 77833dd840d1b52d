"""Check of the weights that a preset's networks start from."""

from collections.abc import Sequence

from components.shared.errors import UserError
from pipelines.doctor.check import INSTALL, Check

_LOCAL = ("file", "package")  # schemes of files that are here, or nowhere


def weights_of_preset(preset: str) -> list[str]:
    """Return the sources of a preset's weights; MLflow has its own check."""
    from components.train.recipe import Recipe
    from pipelines.settings.presets import load_preset

    recipe = Recipe.model_validate(load_preset(preset, (), ("train",))["train"])
    networks = recipe.networks.values()
    named = [source for one in networks for source in (one.encoder_source, one.initial_weights)]
    others = ("champion", "models:", "runs:")
    return [source for source in named if source and not source.startswith(others)]


def check_weights(store_uri: str, sources: Sequence[str]) -> Check:
    """Check that the store has weights, or that they can be fetched on this machine."""
    try:
        from components.shared.storage.store import open_store
        from components.shared.weights.stored import find_weights

        store = open_store(store_uri)
        missing = [source for source in sources if not find_weights(store, source)]
        for source in missing:
            _require_local(source)
    except ImportError as error:
        return Check("weights", "error", f"{store_uri} cannot be tried: {error}", INSTALL)
    except UserError as error:
        return Check("weights", "error", str(error))  # its message has the advice
    if not missing:
        return Check("weights", "ok", f"{', '.join(sources)}: in the store")
    advice = f"brainseg weights fetch {missing[0]} --store {store_uri}"
    found = f"{', '.join(missing)}: not in the store; the first run fetches it, if the network lets"
    return Check("weights", "warning", found, advice)


def _require_local(source: str) -> None:
    from pathlib import Path

    from components.shared.weights.sources import fetch_source

    if source.startswith("/") or source.partition(":")[0] in _LOCAL:
        fetch_source(source, Path())  # it copies nothing
