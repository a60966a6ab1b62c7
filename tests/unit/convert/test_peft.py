"""Adapters that PEFT saved, through a Megatron checkpoint and back, against PEFT itself."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_msm.convert.adapters.peft import CONFIG_FILE, WEIGHTS_FILE, export_adapter
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.verifying import verify
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    AdapterRecord,
    read_checkpoint_state,
    resolve_checkpoint,
)
from tests.tiny import write_tiny_llama

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = torch.arange(3, 19)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("base") / "hf")


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def write_peft(base: Path, out: Path, *, targets: list[str], **settings: Any) -> Any:
    """Save random adapters by PEFT; return its model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, **settings)
    model: Any = get_peft_model(load(base), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    model.save_pretrained(out)
    return model


@pytest.mark.parametrize("targets", [ALL, ["q_proj", "k_proj", "v_proj"]], ids=["all", "qkv"])
def test_there_and_back_is_bit_for_bit_and_computes_what_peft_computes(
    base: Path, tmp_path: Path, targets: list[str]
) -> None:
    from peft import PeftModel

    model = write_peft(base, tmp_path / "peft", targets=targets)
    logits = model(TOKENS).logits

    import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")
    record = export_adapter(tmp_path / "megatron", tmp_path / "back")

    assert (record.rank, record.alpha) == (4, 6.0)
    wanted, found = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("peft", "back"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    loaded: Any = PeftModel.from_pretrained(load(base), str(tmp_path / "back"))
    assert torch.equal(loaded(TOKENS).logits, logits)


def test_export_merges_as_peft_does(base: Path, tmp_path: Path) -> None:
    model = write_peft(base, tmp_path / "peft", targets=ALL)
    logits = model(TOKENS).logits
    import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")

    export_hf(tmp_path / "megatron", tmp_path / "merged", max_shard_size="100KB")

    merged, wanted = load(tmp_path / "merged"), model.merge_and_unload().state_dict()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(merged(TOKENS).logits, logits, rtol=1e-4, atol=1e-5)
    assert verify(tmp_path / "merged", tmp_path / "megatron").is_same_model
    assert not verify(base, tmp_path / "megatron", logits=False).is_same_model


def test_the_adapter_is_part_of_the_lineage(base: Path, tmp_path: Path) -> None:
    write_peft(base, tmp_path / "peft", targets=ALL)
    with_adapter = import_hf(base, tmp_path / "one", adapter=tmp_path / "peft")
    without = import_hf(base, tmp_path / "other")
    assert with_adapter.lineage[0].identity != without.lineage[0].identity
    assert without.adapter is None
    read = read_checkpoint_state(resolve_checkpoint(tmp_path / "one"))
    assert read.adapter == AdapterRecord(
        rank=4,
        alpha=6.0,
        targets=("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"),
    )


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        (["q_proj", "v_proj"], {}, r"not on \['k_proj'\].*merge_and_unload"),
        (ALL, {"use_dora": True}, r"use_dora=True cannot be taken over"),
        (ALL, {"use_rslora": True}, r"use_rslora=True cannot be taken over"),
        (ALL, {"rank_pattern": {"q_proj": 2}}, r"rank_pattern=.* cannot be taken over"),
        (ALL, {"modules_to_save": ["lm_head"]}, r"modules_to_save=.* cannot be taken over"),
    ],
    ids=["q and v alone", "dora", "rslora", "rank pattern", "trained head"],
)
def test_more_than_plain_lora_is_refused(
    base: Path, tmp_path: Path, targets: list[str], settings: dict[str, Any], message: str
) -> None:
    write_peft(base, tmp_path / "peft", targets=targets, **settings)
    with pytest.raises(CheckpointError, match=message):
        import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")
    assert not list(tmp_path.glob("megatron/iter*"))


def test_damaged_or_foreign_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    peft = tmp_path / "peft"
    write_peft(base, peft, targets=ALL)
    good = load_file(peft / WEIGHTS_FILE)
    first = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    for tensors, message in (
        ({k: v for k, v in good.items() if k != first}, f"missing or not of the model: {first}"),
        (good | {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 48)}, "lm_head"),
        (good | {first: torch.ones(5, 48)}, r"size \(5, 48\).*\(4, 48\)"),
    ):
        save_file(tensors, peft / WEIGHTS_FILE)
        with pytest.raises(CheckpointError, match=message):
            import_hf(base, tmp_path / "megatron", adapter=peft)
    (peft / CONFIG_FILE).write_bytes(orjson.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match="not a LoRA configuration"):
        import_hf(base, tmp_path / "megatron", adapter=peft)


def test_a_checkpoint_without_adapters_has_none_to_export(base: Path, tmp_path: Path) -> None:
    import_hf(base, tmp_path / "megatron")
    with pytest.raises(CheckpointError, match="has no LoRA adapters"):
        export_adapter(tmp_path / "megatron", tmp_path / "out")
