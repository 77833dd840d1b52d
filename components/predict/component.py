"""Predict: apply a model to new patients."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def predict(
    model: str,
    source: str,
    settings: str,
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> int:
    """Predicts every volume of a source, and lists unreadable volumes with their reasons.

    Args:
        model: `champion`, `models:/name@alias`, `models:/name/version` or `runs:/id/path`.
        source: URI of the volumes; `brainseg predict --help` lists the forms.
        settings: YAML of `components.predict.settings.PredictSettings`.
        predictions: Folder with one mask per volume (`VOLUME_mask.tif`) and `predictions.csv`.
        report: HTML page with pictures.

    Returns:
        Number of volumes with a mask.
    """
    import shutil
    from pathlib import Path

    from components.predict.prediction import predict_source
    from components.predict.settings import PredictSettings
    from components.shared.config import parse_config
    from components.shared.process import step_process

    with step_process("predict"):
        config = parse_config(PredictSettings, settings, "predict")
        result = predict_source(model, source, Path(predictions.path), config)
        shutil.copyfile(result.report, report.path)
    return result.predicted
