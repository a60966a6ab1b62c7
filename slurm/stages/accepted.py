"""`--accept code`: finished stages stay finished though the code behind them was edited.

Such a stage keeps its old name, so what builds on it finds it; facts and reports say so.
"""

from dataclasses import replace
from pathlib import Path

import orjson

from slurm.stages.ingredients import identity_of
from slurm.stages.record import STAGE_FILE, StageRecord, is_finished, read_done
from slurm.stages.stage import Stage


class FinishedUnderOtherCode:
    """The finished stages below an experiment's folder, by everything but their code."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._newest: dict[str, tuple[float, StageRecord]] = {}
        for record in all_records(root):
            folder = root / "stages" / f"{record.kind}-{record.identity[:16]}"
            done = read_done(folder)
            if done is None or not is_finished(folder, record.identity):
                continue
            key = identity_of(record.kind, record.ingredients, with_code=False)
            known = self._newest.get(key)
            if known is None or known[0] < done.ended_unix_s:
                self._newest[key] = (done.ended_unix_s, record)

    def accept(self, stage: Stage) -> Stage:
        """Return the stage as it was finished before, or as it is when it was not."""
        if is_finished(self._root / stage.folder, stage.identity):
            return stage
        found = self._newest.get(identity_of(stage.kind, stage.ingredients, with_code=False))
        return stage if found is None else replace(stage, code=found[1].code)


def all_records(root: Path) -> list[StageRecord]:
    """Return what every stage ever planned below the experiment's folder is."""
    paths = sorted((root / "stages").glob(f"*/{STAGE_FILE}"))
    return [StageRecord.model_validate(orjson.loads(path.read_bytes())) for path in paths]
