"""Which checkpoints `keep: exports` deletes, and what brings them back."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from slurm.stages.keeping import drop_unneeded, is_dropped, remade
from slurm.stages.record import check_inputs, is_finished, record_outputs
from slurm.stages.stage import Stage, in_order
from slurm.stages.status import all_statuses


def stage(label: str, *needs: Stage, kind: str = "train") -> Stage:
    makes = "run/midtrain" if kind == "train" else "made"
    return Stage(kind=kind, label=label, arguments=(label,), makes=(makes,), needs=needs)


def finish(root: Path, made: Stage) -> None:
    """Do as the job of a stage does."""
    folder = made.write(root)
    (folder / made.makes[0]).mkdir(parents=True)
    (folder / made.makes[0] / "weights").write_text(made.label)
    record_outputs(folder, seconds=1.0)
    drop_unneeded(folder)


def ask(root: Path, name: str, ends: Sequence[Stage], *, keep: str) -> None:
    """Write what an experiment asks for, as it is on disk."""
    stages = in_order(ends)
    consumers = {
        str(s.folder): [str(o.folder) for o in stages if s in o.needs]
        for s in stages
        if any(s in o.needs for o in stages)
    }
    labels = {str(s.folder): s.label for s in stages}
    path = root / "experiments" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        orjson.dumps({"title": name, "labels": labels, "keep": keep, "consumers": consumers})
    )


def test_a_checkpoint_goes_with_the_last_stage_of_any_experiment_that_is_built_on_it(
    tmp_path: Path,
) -> None:
    midtrain = stage("midtrain")
    sft, exported = stage("sft", midtrain), stage("export", midtrain, kind="export")
    others = stage("other sft", midtrain)
    ask(tmp_path, "a", [sft, exported], keep="exports")
    ask(tmp_path, "b", [others], keep="exports")
    for made in (midtrain, sft, exported):
        finish(tmp_path, made)
        assert not is_dropped(tmp_path / midtrain.folder)
    finish(tmp_path, others)
    assert is_dropped(tmp_path / midtrain.folder)
    assert [p.name for p in (tmp_path / midtrain.folder / "run").iterdir()] == []
    assert is_finished(tmp_path / midtrain.folder, midtrain.identity)
    # Nothing is built on these, and of an export nothing is ever dropped.
    assert not any(is_dropped(tmp_path / each.folder) for each in (sft, exported, others))
    [shown] = all_statuses(tmp_path, {midtrain.folder: "midtrain"})
    assert (shown.state, shown.detail) == ("finished", "checkpoint dropped (keep: exports)")


def test_an_experiment_that_keeps_all_or_is_not_known_loses_nothing(tmp_path: Path) -> None:
    midtrain = stage("midtrain")
    exported = stage("export", midtrain, kind="export")
    finish(tmp_path, midtrain)
    finish(tmp_path, exported)
    ask(tmp_path, "a", [exported], keep="exports")
    ask(tmp_path, "b", [exported], keep="all")
    drop_unneeded(tmp_path / exported.folder)
    assert not is_dropped(tmp_path / midtrain.folder)
    (tmp_path / "experiments" / "b.json").unlink()
    drop_unneeded(tmp_path / exported.folder)
    assert is_dropped(tmp_path / midtrain.folder)


@pytest.mark.parametrize("kind", ["import", "export"])
def test_what_a_killed_command_left_does_not_stand_in_the_way_of_the_next(
    kind: str, tmp_path: Path
) -> None:
    """Killed after its last rename, and before it was written down: its command refuses then."""
    made = stage("killed", kind=kind)
    folder = made.write(tmp_path)
    (folder / "made").mkdir()
    assert not is_finished(folder, made.identity)
    made.write(tmp_path)
    assert not (folder / "made").exists()


def test_training_that_was_stopped_keeps_what_it_goes_on_from(tmp_path: Path) -> None:
    made = stage("stopped")
    folder = made.write(tmp_path)
    (folder / "run" / "midtrain").mkdir(parents=True)
    made.write(tmp_path)
    assert (folder / "run" / "midtrain").exists()


def test_asking_again_makes_what_is_missing_and_what_that_was_built_on(tmp_path: Path) -> None:
    imported = stage("import", kind="import")
    midtrain = stage("midtrain", imported)
    exported = stage("export", midtrain, kind="export")
    ends = in_order([exported])
    ask(tmp_path, "a", ends, keep="exports")
    for made in ends:
        finish(tmp_path, made)
    assert [is_dropped(tmp_path / made.folder) for made in ends] == [True, True, False]
    assert remade(tmp_path, ends) == set()

    later = in_order([exported, stage("sft", midtrain)])
    assert remade(tmp_path, later) == {imported.identity, midtrain.identity}
    folder = later[-1].write(tmp_path)
    assert "dropped (keep: exports); run the experiment again" in str(check_inputs(folder))
    for made in (imported, midtrain):
        made.write(tmp_path)
        assert not is_finished(tmp_path / made.folder, made.identity)
    ask(tmp_path, "a", later, keep="exports")
    finish(tmp_path, imported)
    finish(tmp_path, midtrain)
    assert is_dropped(tmp_path / imported.folder)
    assert check_inputs(folder) is None
