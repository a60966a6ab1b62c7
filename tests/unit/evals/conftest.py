import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest

import megatron_msm.cli
import megatron_msm.progress
from tests.unit.evals.tiny_models import item, save_tiny_model, write_items


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def msm_eval(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`msm eval ...` as the command line runs it, in this process."""
    entry = EntryPoint("eval", "evals.cli:app", "msm.commands")
    monkeypatch.setattr(megatron_msm.cli, "entry_points", lambda group: [entry])
    # What takes seconds has no progress lines; on a busy machine it may take longer.
    monkeypatch.setattr(megatron_msm.progress, "LINE_EVERY_S", float("inf"))

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["msm", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            megatron_msm.cli.main()
        status = ended.value.code
        assert status is None or isinstance(status, int)
        captured = capsys.readouterr()
        return Ended(status or 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def items_file(tmp_path: Path) -> Path:
    items = [item(number, tier="near" if number < 3 else "far") for number in range(5)]
    return write_items(tmp_path / "items.jsonl", [*items, item(5, split="dev")])
