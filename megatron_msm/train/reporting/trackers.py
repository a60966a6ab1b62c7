"""TensorBoard, and Weights & Biases by option."""

import importlib.util
from pathlib import Path
from typing import Any

from megatron_msm.config.logging import WandbConfig
from megatron_msm.errors import MissingExtraError
from megatron_msm.train.reporting.metrics import Tracker


class TensorboardTracker:
    """One TensorBoard run a phase. What was logged after `first_step` is purged when it is read."""

    def __init__(self, run_folder: Path, *, phase: str, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(
            str(run_folder / "tensorboard" / phase), purge_step=first_step + 1
        )

    def log(self, row: dict[str, Any]) -> None:
        """Show one line's numbers."""
        for name, value in row.items():
            if "/" in name:
                self._writer.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        """Write what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """End."""
        self._writer.close()


class WandbTracker:
    """One Weights & Biases run for all phases; it goes on when the training does.

    A step that is made again after a kill has the same numbers, and W&B ignores it.

    Args:
        config: Project, names, mode.
        run_folder: Where its files go; its name and path name the run.
        steps_before: Steps of earlier phases: W&B counts over the whole run.
        settings: The resolved configuration, shown beside the run.
    """

    def __init__(
        self, config: WandbConfig, run_folder: Path, *, steps_before: int, settings: dict[str, Any]
    ) -> None:
        import wandb

        self._steps_before = steps_before
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or run_folder.name,
            group=config.group,
            tags=config.tags,
            id=_run_id(run_folder),
            resume="allow",
            mode=config.mode,
            dir=run_folder,
            config=settings,
        )

    def log(self, row: dict[str, Any]) -> None:
        """Show one line's numbers."""
        numbers = {f"{row['phase']}/{name}": value for name, value in row.items() if "/" in name}
        self._run.log(numbers, step=self._steps_before + row["step"])

    def flush(self) -> None:
        """Do nothing: W&B's own process writes as it goes."""

    def close(self) -> None:
        """End, and upload what is left."""
        self._run.finish()


def _run_id(run_folder: Path) -> str:
    """Return the id of the folder's W&B run, made when it is first asked for."""
    import secrets

    path = run_folder / "wandb_run_id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def check_wandb(config: WandbConfig | None) -> None:
    """Refuse a run that asks for Weights & Biases where it is not installed.

    Raises:
        MissingExtraError: It is not.
    """
    if config is not None and importlib.util.find_spec("wandb") is None:
        raise MissingExtraError(feature="logging.wandb", extra="wandb")


def build_trackers(
    wandb: WandbConfig | None,
    run_folder: Path,
    *,
    phase: str,
    first_step: int,
    steps_before: int,
    settings: dict[str, Any],
) -> list[Tracker]:
    """Return what a phase logs to."""
    trackers: list[Tracker] = [TensorboardTracker(run_folder, phase=phase, first_step=first_step)]
    if wandb is not None:
        trackers.append(
            WandbTracker(wandb, run_folder, steps_before=steps_before, settings=settings)
        )
    return trackers
