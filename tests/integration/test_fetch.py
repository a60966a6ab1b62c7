"""Models from a hub: the real client against a local stand-in for the hub's HTTP interface."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, GATED, Hub, running_hub
from tests.integration.training_runs import msm
from tests.tiny import write_tiny_llama

REPO = "tiny/Llama-2"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_llama(tmp_path_factory.mktemp("hub") / "model")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[tuple[str, type[Hub]]]:
    with running_hub(model, REPO) as running:
        yield running


def run(
    *words: str, at: Path, endpoint: str = NOWHERE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    cache = {"XDG_CACHE_HOME": str(at / "cache"), "HF_HOME": str(at / "hf-home")}
    return msm(*words, cwd=at, HF_ENDPOINT=endpoint, **cache, **environment)


def test_a_fetched_model_stands_where_a_folder_is_taken_without_a_network(
    model: Path, hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    endpoint, served = hub
    early = run("convert", "import", REPO, "base", "--no-check", at=tmp_path)
    assert early.returncode == 2
    assert f"msm fetch {REPO}` first" in early.stderr
    assert "Traceback" not in early.stderr

    fetched = run("fetch", REPO, at=tmp_path, endpoint=endpoint)
    assert fetched.returncode == 0, fetched.stderr
    folder = tmp_path / "cache" / "megatron-msm" / "models" / f"{REPO}@{COMMIT[:12]}"
    assert f"fetched    {folder}" in fetched.stdout
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    left_out = {"pytorch_model.bin", "modeling_own.py", "onnx"}
    assert here == {p.name: p.read_bytes() for p in model.iterdir() if p.name not in left_out}
    record = json.loads(folder.with_name(f"{folder.name}.json").read_bytes())
    assert (record["repo"], record["revision"], record["commit"]) == (REPO, "main", COMMIT)
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in here.items()
    }

    before = len(served.asked)
    again = run("fetch", f"{REPO}", "--revision", COMMIT, at=tmp_path, endpoint=endpoint)
    assert again.stdout.startswith("there ")
    assert not any("resolve" in asked for asked in served.asked[before:])

    for name, out in ((REPO, "base"), (f"{REPO}@{COMMIT[:8]}", "other")):
        taken = run("convert", "import", name, out, "--no-check", at=tmp_path)
        assert taken.returncode == 0, taken.stderr
    (tmp_path / "docs.jsonl").write_text('{"text": "A few words."}\n')
    docs = ("prep", "docs", "docs.jsonl", "--tokenizer", REPO, "--out", "data/docs")
    assert run(*docs, at=tmp_path).returncode == 0
    (tmp_path / "run.yaml").write_text(
        f"out: train\nmodel: {{hf: {REPO}}}\nruntime: {{device: cpu, dtype: fp32}}\nphases:\n"
        "- {name: a, data: {prefixes: [data/docs]}, seq_length: 16, global_batch_size: 1,\n"
        "   duration: {steps: 1}, optimizer: {lr: 1.0e-3}}\n"
    )
    planned = run("train", "run.yaml", "--plan-only", at=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert str(folder) in planned.stdout


def test_a_file_with_another_hash_is_refused_and_fetched_anew(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    endpoint, served = hub
    for damaged in ("config.json", "model.safetensors"):
        served.damaged = {damaged}
        refused = run("fetch", REPO, at=tmp_path, endpoint=endpoint)
        assert refused.returncode == 2, refused.stdout
        assert f"{damaged}: came with the hash" in refused.stderr
        assert not list((tmp_path / "cache").rglob("*@*.json"))
    served.damaged = set()
    assert run("fetch", REPO, at=tmp_path, endpoint=endpoint).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("org/none",), "org/none: the hub has no such model"),
        (("no-name",), "no-name: the hub has no such model"),
        ((GATED,), f"{GATED}: is gated"),
        ((REPO, "--revision", "v9"), "has no revision 'v9'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_the_hub_refuses_is_told_in_a_sentence(
    hub: tuple[str, type[Hub]], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = run("fetch", *words, at=tmp_path, endpoint=hub[0])
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_it_is_refused_with_one_sentence(tmp_path: Path, offline: str) -> None:
    done = run("fetch", REPO, at=tmp_path, HF_HUB_OFFLINE=offline)
    assert done.returncode == 2, done.stdout
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {REPO}: the hub cannot be reached from here (")
