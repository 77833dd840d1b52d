"""Decorators of the two kinds of step, one per image."""

import functools

from kfp import dsl

# One image per set of dependencies. The names contain "python" because KFP's local runner
# assumes that another image has no Python, and warns at every task.
DATA_IMAGE = "brainseg-data-python:0.2.0"
TRAINER_IMAGE = "brainseg-trainer-python:0.2.0"

data_step = functools.partial(dsl.component, base_image=DATA_IMAGE, install_kfp_package=False)
trainer_step = functools.partial(dsl.component, base_image=TRAINER_IMAGE, install_kfp_package=False)
