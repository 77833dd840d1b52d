"""A real CPU quota, for tests and benchmarks."""

import contextlib
import uuid

from components.shared.machine import _PROCESS, _cgroups

PERIOD_US = 100_000


class NoQuotaError(Exception):
    """Quotas cannot be made here, and why."""


@contextlib.contextmanager
def cpu_quota_of(cores):
    """A command's first words, with which it runs under a quota of so many cores.

    The quota is that of a new cgroup below the one of this process. Needs root and a cgroup that
    may have others below it.

    Raises:
        NoQuotaError: If it cannot be made.
    """
    folder = _new_group()
    try:
        _write_quota(folder, round(cores * PERIOD_US))
        yield ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
    except OSError as error:
        raise NoQuotaError(str(error)) from error
    finally:
        folder.rmdir()


def _new_group():
    own = next(_cgroups("cpu", _PROCESS), None)
    if own is None:
        raise NoQuotaError("no cgroups on this system")
    folder = own / f"brainseg-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        raise NoQuotaError(str(error)) from error
    return folder


def _write_quota(folder, quota_us):
    if (folder / "cpu.max").exists():
        (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:  # the first version, or an OSError where the controller is not given to this group
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
