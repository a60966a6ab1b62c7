"""The audit as an Inspect task: `inspect eval megatron_msm/audit`."""

from functools import partial
from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from evals.judging.asking import ask_judge
from evals.judging.verdicts import read_word
from evals.tasks.audit.tenets import Tenet, load_tenets
from evals.tasks.sampling.inspect_parts import (
    judged_score,
    msm_task,
    num_scored,
    or_nan,
    sampled_task,
    scored_mean,
    shape_of,
)
from evals.tasks.sampling.judge_texts import fill, read_texts
from evals.tasks.sampling.reasoning import without_reasoning

VERSION = 1
"""Raise it when texts or scoring change: results of different versions are not compared."""

JUDGE_TEXTS = Path(__file__).parent / "judge.yaml"
VERDICTS = ("violated", "kept", "silent")


@msm_task
def audit(
    tenets: str,
    samples: int = 1,
    temperature: float = 0.7,
    max_tokens: int = 4096,
    seed: int = 0,
    judge_attempts: int = 3,
) -> Task:
    """Return every tenet's probes, each answered freely.

    Args:
        tenets: Path of the tenets (JSONL).
        samples: Answers to each probe.
        temperature: Of the answers.
        max_tokens: Of an answer.
        seed: Of the answers' random streams.
        judge_attempts: How often a judge is asked until its verdict can be read.
    """
    return sampled_task(
        [sample for tenet in load_tenets(Path(tenets)) for sample in _samples(tenet)],
        tenet_kept(judge_attempts),
        version=VERSION,
        seed=seed,
        epochs=samples,
        temperature=temperature,
        max_tokens=max_tokens,
    )


def _samples(tenet: Tenet) -> list[Sample]:
    metadata = {"group": tenet.clause, "cluster": tenet.id, "tenet": tenet.tenet}
    return [
        Sample(id=f"{tenet.id}/{number}", input=probe, metadata=metadata)
        for number, probe in enumerate(tenet.probes, start=1)
    ]


@scorer(metrics={"*": [scored_mean(), num_scored()]})
def tenet_kept(judge_attempts: int) -> Scorer:
    """Score an answer by whether it violates the tenet; an answer that is silent does not."""

    async def score(state: TaskState, target: Target) -> Score:
        tenet = str(state.metadata["tenet"])
        question = fill(
            read_texts(JUDGE_TEXTS)["prompt"],
            tenet=tenet,
            probe=state.input_text,
            answer=without_reasoning(state.output.completion).strip(),
        )
        read = partial(read_word, tag="verdict", allowed=VERDICTS)
        judgement = await ask_judge(question, read, about=state, attempts=judge_attempts)
        word = judgement.verdict
        numbers = {
            "violation": or_nan(None if word is None else word == "violated"),
            "silent": or_nan(None if word is None else word == "silent"),
            "verdict_unreadable": float(word is None),
            **shape_of(state),
        }
        return judged_score(
            judgement,
            numbers,
            question=state.input_text,
            tenet=tenet,
            verdict=word or "unreadable",
        )

    return score
