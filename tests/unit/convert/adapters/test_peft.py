"""Adapters that PEFT saved, through a Megatron checkpoint and back, against PEFT itself."""

import re
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_msm.convert.adapters.base_model import recorded_base
from megatron_msm.convert.adapters.peft_config import (
    CHANGES_NOTHING,
    CONFIG_FILE,
    ONLY_THESE,
    READ,
    WEIGHTS_FILE,
    read_peft_config,
)
from megatron_msm.convert.adapters.peft_export import export_adapter
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.verifying import verify
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import (
    AdapterRecord,
    LineageEntry,
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


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        (ALL, {}),
        (["q_proj", "k_proj", "v_proj"], {}),
        (ALL, {"use_rslora": True}),
        (ALL, {"init_lora_weights": "gaussian"}),
        (ALL, {"init_lora_weights": "orthogonal"}),
        (ALL, {"init_lora_weights": "mica"}),
        (ALL, {"init_lora_weights": False, "lora_dropout": 0.5}),
    ],
    ids=["all", "qkv", "rslora", "gaussian", "orthogonal", "mica", "random"],
)
def test_there_and_back_is_bit_for_bit_and_computes_what_peft_computes(
    base: Path, tmp_path: Path, targets: list[str], settings: dict[str, Any]
) -> None:
    from peft import AutoPeftModelForCausalLM

    model = write_peft(base, tmp_path / "peft", targets=targets, **settings).eval()
    logits = model(TOKENS).logits

    import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")
    record = export_adapter(tmp_path / "megatron", tmp_path / "back", base=str(base))

    assert (record.rank, record.alpha) == (4, 6.0)
    wanted, found = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("peft", "back"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    loaded: Any = AutoPeftModelForCausalLM.from_pretrained(
        str(tmp_path / "back"), dtype=torch.float32
    )
    assert torch.equal(loaded(TOKENS).logits, logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank_stabilized", [False, True], ids=["plain", "rslora"])
def test_a_merged_export_is_pefts_own_merge_bit_for_bit(
    tmp_path: Path, dtype: str, rank_stabilized: bool
) -> None:
    from peft import PeftModel

    base = write_tiny_llama(tmp_path / "hf", dtype=dtype)
    write_peft(base, tmp_path / "peft", targets=ALL, use_rslora=rank_stabilized)
    import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")

    export_hf(tmp_path / "megatron", tmp_path / "merged", max_shard_size="100KB")

    as_it_is = load(base).to(getattr(torch, dtype))
    adapted: Any = PeftModel.from_pretrained(as_it_is, str(tmp_path / "peft"))
    wanted = adapted.merge_and_unload().state_dict()
    merged = load(tmp_path / "merged").to(getattr(torch, dtype)).state_dict()
    assert all(torch.equal(merged[name], wanted[name]) for name in wanted)
    assert verify(tmp_path / "merged", tmp_path / "megatron").is_same_model
    assert not verify(base, tmp_path / "megatron", logits=False).is_same_model


def as_hub_cache(folder: Path, cache: Path) -> Path:
    """Put a folder into a cache as a hub's client lays it out, `blobs` on another disk."""
    repo, commit = cache / "models--acme--tiny-llama", "0123456789abcdef0123456789abcdef01234567"
    snapshot, blobs = repo / "snapshots" / commit, cache.parent / "larger-disk"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (repo / "blobs").symlink_to(blobs)
    (repo / "refs").mkdir()
    (repo / "refs" / commit).write_text(commit)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, blobs / f"b{number}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"b{number}")
    return snapshot


def test_an_adapter_of_a_model_from_a_hubs_cache_names_it_as_the_hub_does(
    base: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    model = write_peft(base, tmp_path / "peft", targets=ALL)
    snapshot = as_hub_cache(base, tmp_path / "cache")
    import_hf(snapshot, tmp_path / "megatron", adapter=tmp_path / "peft")

    export_adapter(tmp_path / "megatron", tmp_path / "back")

    written = orjson.loads((tmp_path / "back" / CONFIG_FILE).read_bytes())
    assert written["base_model_name_or_path"] == "acme/tiny-llama"
    assert written["revision"] == snapshot.name
    found: Any = AutoPeftModelForCausalLM.from_pretrained(
        str(tmp_path / "back"),
        cache_dir=str(tmp_path / "cache"),
        local_files_only=True,
        dtype=torch.float32,
    )
    assert torch.equal(found(TOKENS).logits, model(TOKENS).logits)


def test_a_base_that_would_not_be_found_or_is_another_model_is_refused(
    base: Path, tmp_path: Path
) -> None:
    write_peft(base, tmp_path / "peft", targets=ALL)
    import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")
    other = write_tiny_llama(tmp_path / "other", seed=1)
    smaller = write_tiny_llama(tmp_path / "smaller", num_hidden_layers=2)
    for named, error, message in (
        (None, ConfigError, r"came from a folder, 'hf'.*--base"),
        (str(tmp_path / "gone" / "base"), ConfigError, "neither a folder nor a name"),
        (
            str(other),
            CheckpointError,
            r"embed_tokens\.weight is not what the adapters were trained",
        ),
        (str(smaller), CheckpointError, "describes another model"),
    ):
        with pytest.raises(error, match=message):
            export_adapter(tmp_path / "megatron", tmp_path / "out", base=named)
    assert not (tmp_path / "out").exists()


def test_adapters_on_weights_that_were_trained_here_do_not_name_the_model_from_the_hub(
    base: Path, tmp_path: Path
) -> None:
    write_peft(base, tmp_path / "peft", targets=ALL)
    snapshot = as_hub_cache(base, tmp_path / "cache")
    state = import_hf(snapshot, tmp_path / "megatron", adapter=tmp_path / "peft")
    stages = {
        "midtrain": {"adapter": None},
        "sft": {"adapter": {"rank": 4, "alpha": 6.0, "targets": ["linear_qkv"]}},
    }
    lineage = [LineageEntry(stage=n, identity=n, details=d) for n, d in stages.items()]
    trained = state.model_copy(update={"lineage": (*state.lineage, *lineage)})
    with pytest.raises(ConfigError, match=r"stage 'midtrain' ended with.*--base"):
        recorded_base(tmp_path, trained)
    only_adapters = state.model_copy(update={"lineage": (*state.lineage, lineage[1])})
    assert recorded_base(tmp_path, only_adapters).name == "acme/tiny-llama"


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
        (ALL, {"init_lora_weights": "pissa"}, "init_lora_weights='pissa'.*changed the base's"),
        (ALL, {"init_lora_weights": "pissa_niter_2"}, "'pissa_niter_2'.*changed the base's"),
        (ALL, {"init_lora_weights": "olora"}, "init_lora_weights='olora'.*changed the base's"),
        (ALL, {"layers_to_transform": [0]}, r"layers_to_transform=\[0\] cannot be taken over"),
        (ALL, {"rank_pattern": {"q_proj": 2}}, r"rank_pattern=.* cannot be taken over"),
        (ALL, {"modules_to_save": ["lm_head"]}, r"modules_to_save=.* cannot be taken over"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_more_than_plain_lora_is_refused(
    base: Path, tmp_path: Path, targets: list[str], settings: dict[str, Any], message: str
) -> None:
    write_peft(base, tmp_path / "peft", targets=targets, **settings)
    with pytest.raises(CheckpointError, match=message):
        import_hf(base, tmp_path / "megatron", adapter=tmp_path / "peft")
    assert not list(tmp_path.glob("megatron/iter*"))


def test_every_field_of_pefts_newest_config_is_read_known_or_refused() -> None:
    from dataclasses import fields

    from peft import LoraConfig, __version__

    names = {field.name for field in fields(LoraConfig)}
    known = [*READ, *ONLY_THESE, *(name for names in CHANGES_NOTHING.values() for name in names)]
    assert len(known) == len(set(known))
    assert names == {*known}, f"peft {__version__} has other fields"


@pytest.mark.parametrize("name", [*ONLY_THESE, *sorted(READ), "use_newest_idea"])
@pytest.mark.parametrize("value", ["loftq", 7, [1], {"q_proj": 2}, True], ids=str)
def test_a_field_that_is_not_plain_lora_is_refused_by_name_and_value(
    tmp_path: Path, name: str, value: object
) -> None:
    if (name == "init_lora_weights" and value is True) or (name in READ and value in (7, True)):
        return  # plain
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none"}
    (tmp_path / CONFIG_FILE).write_bytes(orjson.dumps({**plain, name: value}))
    with pytest.raises(CheckpointError, match=re.escape(f"{name}={value!r}")):
        read_peft_config(tmp_path)


def test_fields_that_change_nothing_change_nothing(base: Path, tmp_path: Path) -> None:
    write_peft(base, tmp_path / "peft", targets=ALL)
    import_hf(base, tmp_path / "one", adapter=tmp_path / "peft")
    path = tmp_path / "peft" / CONFIG_FILE
    config = orjson.loads(path.read_bytes())
    odd = {name: "anything" for names in CHANGES_NOTHING.values() for name in names}
    path.write_bytes(orjson.dumps({**config, **odd}))
    import_hf(base, tmp_path / "other", adapter=tmp_path / "peft")
    one, other = (
        export_adapter(tmp_path / name, tmp_path / f"{name}-peft", base="acme/tiny")
        for name in ("one", "other")
    )
    assert one == other
    files = [(tmp_path / f"{name}-peft" / WEIGHTS_FILE).read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]


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


def test_an_adapters_config_beside_merged_weights_is_refused(base: Path, tmp_path: Path) -> None:
    merged = shutil.copytree(base, tmp_path / "merged")
    (merged / CONFIG_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="takes the folder for an adapter"):
        import_hf(merged, tmp_path / "megatron")
