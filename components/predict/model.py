"""Which model is meant."""

from components.shared.errors import UserError
from components.shared.tracking.champion import find_champion
from components.shared.tracking.server import connect


def resolve_model(model: str, model_name: str) -> str:
    """Returns what MLflow calls the model, the champion by its version.

    Args:
        model: `champion`, a URI that MLflow reads (`models:/...`, `runs:/...`) or a folder.
        model_name: The registered model that has the champion.

    Raises:
        UserError: If MLflow is needed and cannot be used, or there is no champion.
    """
    if model != "champion":
        if model.startswith(("models:", "runs:")):
            connect()
        return model
    client = connect()
    champion = find_champion(client, model_name)
    if champion is not None:
        return f"models:/{model_name}/{champion.version}"
    versions = client.search_model_versions(f"name = '{model_name}'")
    if not versions:
        raise UserError(
            f"MLflow at {client.tracking_uri} has no model {model_name!r}; train one with "
            "`brainseg run`, or give the URI or the folder of a model"
        )
    raise UserError(
        f"model {model_name!r} has {len(versions)} versions but no champion; their descriptions "
        f"say why; give one by its number, e.g. models:/{model_name}/{versions[0].version}"
    )
