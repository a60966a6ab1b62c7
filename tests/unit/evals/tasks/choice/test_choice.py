"""`msm eval choice` on a tiny real model, through the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from evals.models.local import LocalModel
from evals.tasks.choice.result import OrderScore
from evals.tasks.choice.task import ChoiceSettings, prepare_choice
from megatron_msm.formats.eval_result import EvalResult, Row, load_eval_result
from megatron_msm.formats.files import TMP_PREFIX, sha256_of_file
from tests.unit.evals.conftest import Run
from tests.unit.evals.tiny_models import CHAT_TEMPLATE, item, save_tiny_model, write_items


def copy_of(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def test_result_file_and_table(
    msm_eval: Run, tiny_model: Path, items_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "result.json"
    ended = msm_eval(
        "choice", tiny_model, "--items", items_file, "--out", out, "--dtype", "fp32",
        "--device", "cpu", "--label", "base",
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    result = load_eval_result(out)
    assert result.n == len(result.rows) == 5
    assert {tier: summary.n for tier, summary in result.headline_metric.groups.items()} == {
        "near": 3,
        "far": 2,
    }
    assert result.meaning == "log-odds > 0 means `homemade` is preferred to `affordability`"
    assert result.protocol.items_sha256 == sha256_of_file(items_file)
    assert result.model.label == "base"
    assert result.model.weight_files == {
        "model.safetensors": sha256_of_file(tiny_model / "model.safetensors")
    }
    assert result.model.lineage is None
    for row in result.rows:
        orders = TypeAdapter(list[OrderScore]).validate_python(row.details["orders"])
        for order in orders:
            assert order.log_odds == order.target.mean_logprob - order.other.mean_logprob
    for part in ("near", "far", "all", "log-odds > 0 means `homemade`", "one seed", str(out)):
        assert part in ended.out
    assert not list(out.parent.glob(f"{TMP_PREFIX}*"))


def test_json_is_the_result_without_rows(
    msm_eval: Run, tiny_model: Path, items_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    ended = msm_eval("choice", tiny_model, "--items", items_file, "--out", out, "--json")
    shown = json.loads(ended.out)
    written = json.loads(out.read_text())
    assert written.pop("rows")
    assert shown == written


def score(
    model: Path, items: Path, *, batch_size: int = 8, target: str | None = None
) -> EvalResult:
    settings = ChoiceSettings(items=items, dtype="fp32", batch_size=batch_size, target=target)
    work = prepare_choice(settings, LocalModel(model, device="cpu"), "choice")
    return work(lambda done, total: None)


def log_odds(row: Row) -> float:
    number = row.numbers["log_odds"]
    assert number is not None
    return number


def test_batch_size_changes_rounding_only(tiny_model: Path, items_file: Path) -> None:
    alone = score(tiny_model, items_file, batch_size=1)
    for batch_size in (3, 8, 64):
        together = score(tiny_model, items_file, batch_size=batch_size)
        for one, other in zip(alone.rows, together.rows, strict=True):
            assert log_odds(one) == pytest.approx(log_odds(other), abs=2e-5)


def test_swapping_the_options_in_the_file_flips_the_sign_exactly(
    tiny_model: Path, tmp_path: Path
) -> None:
    as_is = write_items(tmp_path / "a.jsonl", [item(n) for n in range(5)])
    swapped = write_items(tmp_path / "b.jsonl", [item(n, swapped=True) for n in range(5)])
    one, other = score(tiny_model, as_is), score(tiny_model, swapped)
    targets = [scored.protocol.settings["target"] for scored in (one, other)]
    assert targets == ["homemade", "affordability"]
    assert [log_odds(row) for row in one.rows] == [-log_odds(row) for row in other.rows]
    assert all(log_odds(row) for row in one.rows)
    again = score(tiny_model, swapped, target="homemade")
    assert again.rows == one.rows


def test_lineage_comes_from_the_export_record(
    tiny_model: Path, items_file: Path, tmp_path: Path
) -> None:
    model = copy_of(tiny_model, tmp_path / "exported")
    lineage = [{"stage": "import", "identity": "ab"}, {"stage": "sft", "identity": "cd"}]
    (model / "msm_export.json").write_bytes(orjson.dumps({"lineage": lineage}))
    assert score(model, items_file).model.lineage == lineage


def test_terminal_control_and_markup_in_a_tier_are_shown_and_not_obeyed(
    msm_eval: Run, tiny_model: Path, tmp_path: Path
) -> None:
    items = [item(n, tier="\x1b[31m[bold]near") for n in range(3)]
    path = write_items(tmp_path / "items.jsonl", items)
    ended = msm_eval("choice", tiny_model, "--items", path, "--out", tmp_path / "r.json")
    assert ended.status == 0
    assert "\x1b" not in ended.out
    assert "[31m[bold]near" in ended.out


def break_no_config(model: Path) -> None:
    (model / "config.json").unlink()


def break_megatron(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "iter_0000010").mkdir()


def break_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def break_torn_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)


def break_missing_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def break_shape(model: Path) -> None:
    config = model / "config.json"
    config.write_text(
        config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 64')
    )


def break_architecture(model: Path) -> None:
    config = model / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"foobar"'))


def break_no_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


def break_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% if %}")


def break_export_record(model: Path) -> None:
    (model / "msm_export.json").write_text('{"lineage": "base"}')


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (break_no_config, ["config.json", "Give the folder"]),
        (break_megatron, ["Megatron checkpoint", "msm convert export"]),
        (break_no_weights, ["safetensors"]),
        (break_torn_weights, ["transformers cannot load it"]),
        (break_missing_tensor, ["missing keys", "layers.1.mlp.up_proj"]),
        (break_shape, ["mismatched keys", "mlp.down_proj", "and 5 more"]),
        (break_architecture, ["transformers cannot load it", "foobar"]),
        (break_no_template, ["no chat template", "chat_template.jinja"]),
        (break_template, ["chat template cannot render", "chat_template.jinja"]),
        (break_export_record, ["msm_export.json", "`lineage`"]),
    ],
)
def test_a_broken_model_folder_ends_with_one_message(
    msm_eval: Run,
    tiny_model: Path,
    items_file: Path,
    tmp_path: Path,
    damage: object,
    parts: list[str],
) -> None:
    model = copy_of(tiny_model, tmp_path / "model")
    assert callable(damage)
    damage(model)
    out = tmp_path / "result.json"
    ended = msm_eval("choice", model, "--items", items_file, "--out", out)
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    for part in [str(model), *parts]:
        assert part in ended.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--split", "dev"], ["'dev' holds 1 items"]),
        (["--target", "quality"], ["--target", "'quality'"]),
        (["--device", "gpu"], ["--device gpu"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--dtype", "fp8"], ["--dtype"]),
        (["--out", "/proc/none/x.json"], ["/proc/none/x.json", "Give another path"]),
        (["--out", "/tmp"], ["/tmp", "is a folder"]),
        (["--items", "/none.jsonl"], ["/none.jsonl", "No such file"]),
    ],
)
def test_a_wrong_option_ends_with_one_message(
    msm_eval: Run,
    tiny_model: Path,
    items_file: Path,
    tmp_path: Path,
    options: list[str],
    parts: list[str],
) -> None:
    defaults = ["--items", str(items_file), "--out", str(tmp_path / "result.json")]
    ended = msm_eval("choice", tiny_model, *defaults, *options)
    assert ended.status == 2
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in ended.err


def test_an_item_longer_than_the_context_is_named(
    msm_eval: Run, items_file: Path, tmp_path: Path
) -> None:
    model = save_tiny_model(tmp_path / "short", max_length=60, chat_template=CHAT_TEMPLATE)
    ended = msm_eval("choice", model, "--items", items_file, "--out", tmp_path / "r.json")
    assert ended.status == 2
    assert "item 'chair-0'" in ended.err
    assert "context is 60" in ended.err


def test_the_command_starts_without_heavy_imports() -> None:
    heavy = {"torch", "transformers", "scipy", "matplotlib", "numpy", "pydantic", "jinja2"}
    code = f"import evals.cli, sys; print(*({heavy} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "", "")
