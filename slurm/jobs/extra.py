"""The packages behind SLURM jobs and experiments, which the base install leaves out."""

from importlib.util import find_spec

from megatron_msm.errors import MissingExtraError


def require_slurm_extra(feature: str) -> None:
    """Refuse a command whose packages are missing.

    Raises:
        MissingExtraError: submitit or filelock is not installed.
    """
    if any(find_spec(package) is None for package in ("submitit", "filelock")):
        raise MissingExtraError(feature=feature, extra="slurm")
