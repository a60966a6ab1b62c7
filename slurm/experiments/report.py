"""The report over the arms that are evaluated so far, written by `msm eval report`."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson

from megatron_msm.errors import ConfigError, MsmError
from megatron_msm.formats.files import write_json_atomic
from megatron_msm.own_packages import python_module
from slurm.experiments.contrasts import possible
from slurm.experiments.experiment_file import StartedExperiment
from slurm.stages.facts import FACTS_FILE, stage_facts
from slurm.stages.record import read_done


def finished_results(root: Path, started: StartedExperiment) -> list[tuple[str, Path]]:
    """Return (arm, result file) of the evaluations that are finished.

    Raises:
        ConfigError: None is.
    """
    finished = [
        (arm.name, root / result)
        for arm in started.arms
        for result in arm.evaluations.values()
        if read_done(root / result.parent) is not None
    ]
    if not finished:
        raise ConfigError(f"{root}: no arm is evaluated yet. See `msm experiment status`.")
    return finished


def write_report(
    root: Path, started: StartedExperiment, results: Sequence[tuple[str, Path]], out: Path
) -> list[str]:
    """Write the report and return its verdicts, a line each.

    Raises:
        MsmError: `msm eval report` refused; it has said why.
    """
    arguments = ["eval", "report", str(out), "--title", started.title]
    arguments += [part for arm, result in results for part in ("--result", f"{arm}={result}")]
    contrasts = possible(started.contrasts, {arm for arm, _ in results})
    arguments += [part for text in contrasts for part in ("--contrast", text)]
    with tempfile.TemporaryDirectory(prefix="msm-") as scratch:
        facts = Path(scratch) / FACTS_FILE
        found = stage_facts(root, started.labels)
        write_json_atomic(facts, [fact.model_dump(mode="json") for fact in found])
        command = python_module("megatron_msm.cli", *arguments, "--facts", str(facts), "--json")
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise MsmError("the report was not written; the message above says why.")
    return list(orjson.loads(done.stdout)["verdicts"])
