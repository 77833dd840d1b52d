"""The graphs and steps that there are, by the names of their files."""

from collections.abc import Mapping

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

from components.aggregate.component import aggregate
from components.check_data.component import check_data
from components.compare.component import compare
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.notify.component import notify
from components.predict.component import predict
from components.profile.component import profile
from components.register.component import register
from components.shared.errors import UserError
from components.split.component import fold, split
from components.train.component import train
from pipelines.comparison import comparison
from pipelines.cross_validation import cross_validation
from pipelines.retraining import retraining
from pipelines.training import training

PIPELINES: Mapping[str, GraphComponent] = {
    "training": training,
    "retraining": retraining,
    "cross-validation": cross_validation,
    "comparison": comparison,
}
COMPONENTS: Mapping[str, BaseComponent] = {
    "ingest": ingest,
    "check_data": check_data,
    "profile": profile,
    "split": split,
    "fold": fold,
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "aggregate": aggregate,
    "register": register,
    "predict": predict,
    "notify": notify,
}


def find_pipeline(name: str) -> GraphComponent:
    """A pipeline by its short name.

    Raises:
        UserError: If there is none of this name.
    """
    try:
        return PIPELINES[name]
    except KeyError as error:
        raise UserError(f"no pipeline {name!r}; there are {', '.join(PIPELINES)}") from error
