"""Run files: YAML 1.2, overrides, and messages that name the field."""

from pathlib import Path

import pytest

from megatron_msm.config.load import dump_config, load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError

RUN = """\
out: runs/a
model: {checkpoint: base}
phases:
  - name: midtrain
    data: {prefixes: [d]}
    seq_length: 64
    global_batch_size: 4
    duration: {steps: 10}
    optimizer: {lr: 1e-4}
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_defaults_and_numbers_as_written(run_file: Path) -> None:
    config = load_config(run_file, RunConfig)
    assert config.phases[0].optimizer.lr == 1e-4  # YAML 1.1 would read text
    assert config.parallel.world_size == 1
    assert config.num_micro_batches(config.phases[0]) == 4


@pytest.mark.parametrize("model", ["{}", "{checkpoint: base, hf: folder}"])
def test_a_model_has_one_source(model: str, run_file: Path) -> None:
    with pytest.raises(ConfigError, match="model: give exactly one of `checkpoint` and `hf`"):
        load_config(run_file, RunConfig, [f"model={model}"])
    assert load_config(run_file, RunConfig, ["model={hf: folder}"]).model.source == Path("folder")


def test_a_batch_in_tokens_is_whole_sequences(run_file: Path, tmp_path: Path) -> None:
    run_file.write_text(RUN.replace("global_batch_size: 4", "global_batch_tokens: 512"))
    config = load_config(run_file, RunConfig)
    assert config.phases[0].global_batch_size == 8
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "resolved.yaml", RunConfig) == config
    run_file.write_text(RUN.replace("global_batch_size: 4", "global_batch_tokens: 500"))
    with pytest.raises(ConfigError, match="500 is not 7 sequences of 64 positions = 448"):
        load_config(run_file, RunConfig)


def test_resolved_configuration_reads_back_as_itself(run_file: Path, tmp_path: Path) -> None:
    config = load_config(run_file, RunConfig, ["parallel.data=2", "runtime.dtype=fp32"])
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "resolved.yaml", RunConfig) == config


@pytest.mark.parametrize("path", ["phases.midtrain.seq_length", "phases.0.seq_length"])
def test_overrides_find_list_elements_by_name_and_number(run_file: Path, path: str) -> None:
    assert load_config(run_file, RunConfig, [f"{path}=128"]).phases[0].seq_length == 128


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("phases.0.seqlength=1", "Did you mean 'seq_length'"),
        ("paralel.data=2", "Did you mean 'parallel'"),
        ("parallel.data=two", "parallel.data"),
        ("parallel.data=0", "greater than or equal to 1"),
        ("phases.0.optimizer={}", "phases.midtrain.optimizer.lr: required"),
        ("out", "section.field=value"),
        ("out.x=1", "is a value, not a section"),
        ("runtime.dtype=fp16", "'fp32' or 'bf16'"),
        ("runtime.fp8={recipe: mxfp8, param_gather: true}", "recipe 'mxfp8' is not supported"),
        ("runtime.fp8={recipe: delayed, param_gather: true}", "recipe 'delayed' is not supported"),
    ],
)
def test_wrong_fields_are_named(run_file: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(run_file, RunConfig, [override])
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "\tx: 1"], ids=["open", "list", "tab"])
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path, RunConfig)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("seq_length: 64", "seqlength: 64", "6: phases.midtrain.seqlength: unknown key. Did you"),
        ("seq_length: 64", "seq_length: long", "6: phases.midtrain.seq_length: Input should be a"),
        ("lr: 1e-4", "lr: -1", "9: phases.midtrain.optimizer.lr: Input should be greater than"),
        ("    seq_length: 64\n", "", "4: phases.midtrain.seq_length: required, but missing."),
        ("out: runs/a", "seed: 1", " out: required, but missing."),
        ("[d]}", "[d], rolse: {}}", "5: phases.midtrain.data.rolse: unknown key. Did you mean"),
    ],
    ids=["misspelt", "of another type", "too small", "missing", "missing at the top", "inline"],
)
def test_one_mistake_is_one_line_with_its_place(
    run_file: Path, before: str, after: str, expected: str
) -> None:
    run_file.write_text(RUN.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load_config(run_file, RunConfig)
    assert str(caught.value).startswith(f"{run_file}:{expected}")
    assert "\n" not in str(caught.value)


def test_every_mistake_has_its_line(run_file: Path) -> None:
    run_file.write_text(RUN.replace("out:", "uot:").replace("lr:", "larning_rate:"))
    with pytest.raises(ConfigError) as caught:
        load_config(run_file, RunConfig, ["parallel.data=two"])
    places = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert sorted(places) == [
        [f"{run_file}", "parallel.data"],
        [f"{run_file}:1", "uot"],
        [f"{run_file}:9", "phases.midtrain.optimizer.larning_rate"],
        [f"{run_file}:9", "phases.midtrain.optimizer.lr"],
    ]
    assert "(override 'parallel.data=two')" in str(caught.value)
