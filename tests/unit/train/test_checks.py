"""What the checks say and refuse about data, and which rows a step sees."""

import re
from pathlib import Path

import orjson
import pytest
import torch
from typer.testing import CliRunner

from data_prep.cli import app
from data_prep.inspecting.step_rows import describe_step, read_step
from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.data.batch import MicroBatch, micro_batches_of_step
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.sizes.gpus import gpu_named
from megatron_msm.train import checks
from megatron_msm.train.checks import checked_run
from megatron_msm.train.reporting.expected import expected_lines
from megatron_msm.train.resolved_run import ResolvedRun
from megatron_msm.train.summary import describe, not_checked
from tests.tiny import write_tiny_llama
from tests.unit.data_prep.prep_cases import (
    conversations,
    prepare_docs,
    prepare_talks,
    texts,
    write_lines,
)

RUN = """\
out: {folder}/train
model: {{checkpoint: {folder}/base}}
phases:
  - name: midtrain
    data: {{prefixes: [{folder}/docs]}}
    seq_length: 128
    global_batch_size: 4
    duration: {{epochs: 1}}
    optimizer: {{lr: 1e-4}}
  - name: sft
    data:
      sources:
        - {{prefix: {folder}/chats, rows: 12}}
        - {{prefix: {folder}/mix, epochs: 1}}
    seq_length: 128
    global_batch_size: 4
    duration: {{epochs: 1}}
    optimizer: {{lr: 1e-4}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    hf = write_tiny_llama(root / "hf")
    import_hf(hf, root / "base")
    clauses = [{**line, "spec_id": "s1", "clause_ids": ["c2", "c7"]} for line in texts(40)]
    prepare_docs([write_lines(root / "d.jsonl", clauses)], hf, root / "docs")
    prepare_talks([write_lines(root / "c.jsonl", conversations(30))], hf, root / "chats")
    prepare_talks([write_lines(root / "m.jsonl", conversations(20))], hf, root / "mix")
    roles = ("train", "dev", "test", None)
    aside = [{**line, "role": role} for line, role in zip(texts(4), roles, strict=True)]
    prepare_docs([write_lines(root / "a.jsonl", aside)], hf, root / "aside")
    (root / "run.yaml").write_text(RUN.format(folder=root))
    return root


def plan(folder: Path, *overrides: str) -> ResolvedRun:
    return checked_run(load_config(folder / "run.yaml", RunConfig, overrides))


def test_the_summary_has_the_numbers_of_a_step_and_of_a_rank(folder: Path) -> None:
    lines = describe(plan(folder, "parallel.pipeline=2", "phases.midtrain.micro_batch_size=2"))
    # Embedding and half of the layers; the last stage has a copy of the tied embedding and a norm.
    (weights,) = (line for line in lines if line.startswith("weights"))
    lowest, highest = re.findall(r"[\d,]+", weights)
    assert int(highest.replace(",", "")) == int(lowest.replace(",", "")) + 48
    assert any("(2 micro batches on each rank)" in line for line in lines)


def test_held_out_rows_of_any_role_are_admitted_for_validation(folder: Path) -> None:
    held_out = f"phases.midtrain.validation={{prefixes: [{folder}/aside], interval_steps: 7}}"
    lines = describe(plan(folder, held_out))
    assert f"  {folder}/aside: held out, 1 batches every 7 steps" in lines
    same = plan(folder).phases[0].config_sha256
    assert plan(folder, held_out).phases[0].config_sha256 == same, "it changes no result"


def test_a_batch_that_is_larger_than_the_data_is_said(folder: Path) -> None:
    told = describe(plan(folder, "phases.midtrain.global_batch_size=1000"))
    (line,) = (line for line in told if "global_batch_size 1,000 is more than the" in line)
    packs = plan(folder).phases[0].total_packs
    assert f"{packs} packed sequences of the whole phase, so {1000 - packs} of its only" in line
    assert not any("is more than the" in line for line in describe(plan(folder)))


def test_what_to_expect_on_a_known_gpu(folder: Path) -> None:
    memory, times = expected_lines(plan(folder), gpu_named("h100"))
    assert re.search(r"expected   \d+\.\d GiB on the fullest rank \(H100", memory)
    assert re.search(r"midtrain .* s a step, sft .* s a step; .* hours in all", times)


def test_every_source_is_accounted_for(folder: Path) -> None:
    lines = "\n".join(describe(plan(folder)))
    assert f"{folder}/docs: 40 rows (1.00 epochs), " in lines
    assert f"{folder}/chats: 12 rows (0." in lines
    assert f"{folder}/mix: 20 rows (1.00 epochs), " in lines
    assert "assistant (loss) of" in lines
    assert "warning    midtrain has only" in lines
    assert "is not drawn from" not in lines
    thin = (
        "phases.sft.data={sources: [{prefix: %s/chats, weight: 1}, {prefix: %s/mix, weight: 1e-6}]}"
    )
    told = describe(plan(folder, thin.replace("%s", str(folder)), "phases.sft.duration={steps: 3}"))
    assert any(f"warning    {folder}/mix is not drawn from at all" in line for line in told)
    steps = "\n".join(describe(plan(folder, "phases.midtrain.duration={steps: 100}")))
    assert "warning    midtrain" not in steps


def test_the_identity_is_that_of_the_blend(folder: Path) -> None:
    base = plan(folder).phases[1].config_sha256
    changes = {
        "rows": "phases.sft.data.sources.0.rows=13",
        "amount": "phases.sft.data.sources.1={prefix: %s/mix, rows: 20}",
        "order": "phases.sft.data.sources="
        "[{prefix: %s/mix, epochs: 1}, {prefix: %s/chats, rows: 12}]",
        "packing": "phases.sft.data.packing={align: 2}",
        "seed": "seed=7",
    }
    found = {
        name: plan(folder, change.replace("%s", str(folder))).phases[1].config_sha256
        for name, change in changes.items()
    }
    assert len({base, *found.values()}) == len(changes) + 1
    saved = plan(folder, "phases.sft.checkpoint={save_interval_steps: 3}").phases[1]
    assert saved.config_sha256 == base


def test_rows_set_aside_are_refused(folder: Path) -> None:
    change = f"phases.midtrain.data={{prefixes: [{folder}/aside]}}"
    with pytest.raises(
        DataFormatError, match=r"1 with role 'dev', 1 with role 'test'.*data\.roles"
    ):
        plan(folder, change)
    admitted = f"phases.midtrain.data={{prefixes: [{folder}/aside], roles: [train, dev, test]}}"
    assert plan(folder, admitted).phases[0].num_steps == 1


def test_errors_name_the_phase(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"phases\.sft: duration: 999 steps need 3996"):
        plan(folder, "phases.sft.duration={steps: 999}")
    with pytest.raises(ConfigError, match=r"phases\.sft: data\.packing\.align: 12 .* 128"):
        plan(folder, "phases.sft.data.packing={align: 12}")


def test_a_steps_rows_come_with_their_clauses(folder: Path) -> None:
    seen = [read_step(folder / "run.yaml", [], phase="midtrain", step=n) for n in (1, 2)]
    assert all(row.provenance.clause_ids == ["c2", "c7"] for row in seen[0])
    rows = [{row.seen.piece.row for row in step} for step in seen]
    assert rows[0]
    assert rows[0].isdisjoint(rows[1])
    line = next(describe_step(seen[0]))
    assert "spec s1  clauses c2, c7  domain food" in line
    with pytest.raises(ConfigError, match=r"--step 0: phase 'midtrain'.*steps 1 to \d+"):
        read_step(folder / "run.yaml", [], phase="midtrain", step=0)
    with pytest.raises(ConfigError, match=r"--phase aft: .* midtrain, sft"):
        read_step(folder / "run.yaml", [], phase="aft", step=1)


def test_the_rows_command_prints_json(folder: Path) -> None:
    arguments = ["rows", str(folder / "run.yaml"), "--phase", "sft", "--step", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = orjson.loads(result.stdout)
    assert found["step"] == 1
    assert {row["prefix"] for row in found["rows"]} <= {f"{folder}/chats", f"{folder}/mix"}


def batches(made: ResolvedRun, *, data_size: int, micro_batch_size: int) -> list[MicroBatch]:
    """Return step 0's micro batches of all data parallel ranks, in the global batch's order."""
    phase = made.phases[1]
    ranks = [
        list(
            micro_batches_of_step(
                phase.dataset,
                phase.order,
                step=0,
                global_batch_size=4,
                micro_batch_size=micro_batch_size,
                data_rank=rank,
                data_size=data_size,
                device=torch.device("cpu"),
            )
        )
        for rank in range(data_size)
    ]
    return [batch for round_ in zip(*ranks, strict=True) for batch in round_]


@pytest.mark.parametrize(("data_size", "micro_batch_size"), [(2, 1), (1, 2), (4, 1), (2, 2)])
def test_every_layout_sees_the_same_blend(
    folder: Path, data_size: int, micro_batch_size: int
) -> None:
    made = plan(folder)
    wanted = torch.cat([b.tokens_1T for b in batches(made, data_size=1, micro_batch_size=1)], 1)
    found = batches(plan(folder), data_size=data_size, micro_batch_size=micro_batch_size)
    assert torch.equal(torch.cat([batch.tokens_1T for batch in found], 1), wanted)


def test_a_stored_plan_is_what_training_uses(folder: Path) -> None:
    arguments = ["pack", str(folder / "docs"), "--seq-length", "128", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    path = Path(orjson.loads(result.stdout)["path"])
    assert path.name.startswith("docs.pack-128-")
    before = plan(folder).phases[0]
    assert len(before.dataset) == orjson.loads(result.stdout)["sequences"]
    path.write_bytes(b"torn")
    with pytest.raises(DataFormatError, match="not a usable packing plan"):
        plan(folder)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert plan(folder).phases[0].config_sha256 == before.config_sha256


def test_the_pack_command_tells_the_price_of_alignment(folder: Path) -> None:
    arguments = ["pack", str(folder / "chats"), "--seq-length", "128", "--align", "16"]
    result = CliRunner().invoke(app, [*arguments, "--max-documents", "3"])
    assert "30 rows in" in result.output
    assert "at most 3 documents a sequence" in result.output
    assert "are padding to multiples of 16" in result.output
    shown = CliRunner().invoke(
        app, ["pack", f"{folder}/docs", "--seq-length", "128", "--show", "0"]
    )
    assert "c2, c7" in shown.output
    wrong = CliRunner().invoke(
        app, ["pack", f"{folder}/docs", "--seq-length", "128", "--show", "-1"]
    )
    assert "--show -1" in str(wrong.exception)


def test_a_token_without_a_row_of_the_embedding_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = read_model_shape(folder / "hf")
    largest = IndexedDataset(folder / "chats").largest_token()
    assert largest == max(int(row.max()) for row in IndexedDataset(folder / "chats"))

    def use_rows(count: int) -> None:
        smaller = shape.model_copy(update={"vocab_size": count})
        monkeypatch.setattr(checks, "read_model_shape", lambda folder: smaller)

    use_rows(largest + 1)  # fewer than the tokenizer has, and enough for what it made
    plan(folder)
    use_rows(largest)
    with pytest.raises(DataFormatError, match=f"has token id {largest}, .* {largest} rows"):
        plan(folder)


def test_a_field_of_loss_by_that_no_dataset_has_is_told_before_ranks_start(folder: Path) -> None:
    plan(folder, "logging.loss_by=[source, spec_id]")
    with pytest.raises(DataFormatError, match=r"logging\.loss_by: .*'no_such'"):
        plan(folder, "logging.loss_by=[source, no_such]")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("runtime={device: cpu, fp8: {}}", "runtime.fp8"),
        ("memory.optimizer_offload=0.5", "memory.optimizer_offload"),
    ],
)
def test_what_needs_a_gpu_is_refused_where_the_ranks_run_on_the_cpu(
    folder: Path, override: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=f"{named}: .*cpu"):
        plan(folder, "runtime.device=cpu", override)


def test_a_plan_says_what_only_a_machine_with_a_gpu_can_tell(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()))
    [line] = not_checked(plan(folder, "runtime={device: cuda, fp8: {}}").config)
    assert "runtime.device=cuda and runtime.fp8: not checked" in line
    assert not_checked(plan(folder).config) == []
