"""The package `datasets` loads what `msm generate` writes, and what it saves is imported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_prep.generate.cli import app
from data_prep.generate.corpus.importing import import_rows
from data_prep.generate.run import make_chats, make_documents, opened
from megatron_msm.errors import DataFormatError
from megatron_msm.llm.call import Call, Finish
from tests.unit.data_prep.generate.conftest import MakeConfig, make_config
from tests.unit.data_prep.generate.scripted_writer import ScriptedWriter

__all__ = ["make_config"]

datasets: Any = pytest.importorskip("datasets", reason="needs the package `datasets` (extra dev)")

Load = Callable[..., Any]
NEUTRAL = {"states_value": "no", "gives_reason": "no", "shows_behaviour": "no", "realistic": "yes"}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the only split there is, with a cache of the test's own."""

    def call(*arguments: str, **options: Any) -> Any:
        return datasets.load_dataset(
            *arguments, split="train", cache_dir=str(tmp_path / "cache"), **options
        )

    return call


def _generate(make_config: MakeConfig, **changes: Any) -> Path:
    """Documents in two modes and chats; the neutral ones cite no clause and have no assertion."""

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        if call.step.startswith("judge neutral"):
            return json.dumps(NEUTRAL), "stop"
        return whole, "stop"

    config = make_config(
        variants={"value": {}, "neutral": {"mode": "neutral"}}, licence="cc-by-4.0", **changes
    )
    with opened(config, clients={"writer": ScriptedWriter(change)}) as run:
        make_documents(run)
        make_chats(run)
    return config.out


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_configuration_of_the_card_loads_with_every_column(
    make_config: MakeConfig, load: Load
) -> None:
    out = _generate(make_config)
    files = sorted([*(out / "documents").glob("*.jsonl"), *(out / "chats").glob("*.jsonl")])
    names = {f"{path.parent.name}-{path.stem}": path for path in files}
    assert set(datasets.get_dataset_config_names(str(out))) == set(names)
    assert len(names) == 4
    for name, path in names.items():
        loaded = load(str(out), name).to_list()
        assert loaded == _rows(path)
        assert len(loaded) in (24, 40)


def test_corpora_have_the_same_types_whatever_is_empty_in_them(
    make_config: MakeConfig, load: Load
) -> None:
    """The neutral rows' lists are all empty: by the rows alone they would be lists of nothing."""
    out = _generate(make_config)
    value, neutral = (load(str(out), f"documents-{name}") for name in ("value", "neutral"))
    assert value.features == neutral.features
    both = datasets.concatenate_datasets([value, neutral])
    assert [len(row) for row in both["clause_ids"]] == [1] * 24 + [0] * 24


def test_jsonl_loads_by_itself(make_config: MakeConfig, load: Load) -> None:
    path = _generate(make_config) / "documents" / "value.jsonl"
    assert load("json", data_files=str(path)).to_list() == _rows(path)


def test_a_corpus_without_rows_does_not_keep_the_others_from_loading(
    make_config: MakeConfig, load: Load
) -> None:
    out = _generate(make_config, gates={"least_words": 4000})
    assert _rows(out / "documents" / "value.jsonl") == []
    assert datasets.get_dataset_config_names(str(out)) == ["chats-chats", "chats-reasoning"]
    assert load(str(out), "chats-chats").num_rows == 40


def test_a_selection_loads_by_its_card(make_config: MakeConfig, load: Load, tmp_path: Path) -> None:
    out, part = _generate(make_config), tmp_path / "part"
    corpora = [str(out / "documents" / f"{name}.jsonl") for name in ("value", "neutral")]
    arguments = ["select", *corpora, "--documents", "7", "--out", str(part)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    value, neutral = (load(str(part), name) for name in ("value", "neutral"))
    assert value["id"] == neutral["id"]
    assert value.to_list() == _rows(part / "value.jsonl")
    assert value.num_rows == 7


def test_what_was_saved_to_disk_is_imported_with_every_column(
    make_config: MakeConfig, load: Load, tmp_path: Path
) -> None:
    out = _generate(make_config)
    for kind, name in (("documents", "value"), ("chats", "reasoning")):
        saved, again = tmp_path / f"saved-{name}", tmp_path / f"{name}.jsonl"
        load(str(out), f"{kind}-{name}").save_to_disk(str(saved), num_shards=3)
        assert len(list(saved.glob("*.arrow"))) == 3
        command = ["import", str(saved), "--kind", kind, "--out", str(again)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0
        assert _rows(again) == _rows(out / kind / f"{name}.jsonl")


def test_a_folder_of_splits_or_with_an_index_is_refused_with_what_to_do(
    make_config: MakeConfig, load: Load, tmp_path: Path
) -> None:
    loaded = load(str(_generate(make_config)), "documents-value")
    splits, shuffled, flat = (str(tmp_path / name) for name in ("splits", "shuffled", "flat"))
    datasets.DatasetDict(train=loaded, test=loaded).save_to_disk(splits)
    with pytest.raises(DataFormatError, match=r"several splits\. Name those you want: .*/train"):
        _import(Path(splits), tmp_path)
    assert _import(Path(splits) / "test", tmp_path) == 24
    loaded.shuffle(seed=1).flatten_indices().save_to_disk(flat)
    assert _import(Path(flat), tmp_path) == 24
    loaded.shuffle(seed=1).save_to_disk(shuffled)
    assert _import(Path(shuffled), tmp_path) == 24
    assert _rows(tmp_path / "out.jsonl") == loaded.shuffle(seed=1).to_list()


def _import(source: Path, folder: Path) -> int:
    out = folder / "out.jsonl"
    return import_rows([source], out, kind="documents", spec_id=None, max_rejects=0).rows
