"""The graphs and steps that there are, by the names of their files."""

from collections.abc import Mapping

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.predict.component import predict
from components.profile.component import profile
from components.register.component import register
from components.split.component import split
from components.train.component import train
from pipelines.training import training

PIPELINES: Mapping[str, GraphComponent] = {"training": training}
COMPONENTS: Mapping[str, BaseComponent] = {
    "ingest": ingest,
    "profile": profile,
    "split": split,
    "train": train,
    "evaluate": evaluate,
    "register": register,
    "predict": predict,
}
