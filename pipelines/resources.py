"""Named resources of tasks: the only place for what a step may use on a cluster."""

from kfp import dsl


def small(task: dsl.PipelineTask) -> None:
    """A step that reads, checks and describes data."""
    task.set_cpu_request("1").set_cpu_limit("4")
    task.set_memory_request("1Gi").set_memory_limit("4Gi")
    task.set_retry(num_retries=2, backoff_duration="30s")


def gpu(task: dsl.PipelineTask) -> None:
    """A step that runs the network."""
    task.set_cpu_request("4").set_cpu_limit("8")
    task.set_memory_request("16Gi").set_memory_limit("32Gi")
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit("1")
    task.set_retry(num_retries=2, backoff_duration="60s")


def never_cached(task: dsl.PipelineTask) -> None:
    """A step whose result depends on more than its arguments say."""
    task.set_caching_options(enable_caching=False)
