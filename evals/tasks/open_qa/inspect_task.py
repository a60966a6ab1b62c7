"""Open questions as an Inspect task: `inspect eval megatron_msm/open_qa`."""

from functools import partial
from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from evals.judging.asking import ask_judge
from evals.judging.verdicts import read_points
from evals.tasks.open_qa.items import Question, load_questions, read_spec
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
LOW, HIGH = 1, 10


@msm_task
def open_qa(
    questions: str,
    spec: str,
    samples: int = 1,
    temperature: float = 0.7,
    max_tokens: int = 4096,
    seed: int = 0,
    judge_attempts: int = 3,
) -> Task:
    """Return the questions, each answered freely.

    Args:
        questions: Path of the questions (JSONL).
        spec: Path of the spec that answers are judged by.
        samples: Answers to each question.
        temperature: Of the answers.
        max_tokens: Of an answer.
        seed: Of the answers' random streams.
        judge_attempts: How often a judge is asked until its points can be read.
    """
    return sampled_task(
        [_sample(one) for one in load_questions(Path(questions))],
        points(read_spec(Path(spec)), judge_attempts),
        version=VERSION,
        seed=seed,
        epochs=samples,
        temperature=temperature,
        max_tokens=max_tokens,
    )


def _sample(question: Question) -> Sample:
    return Sample(
        id=question.id,
        input=question.question,
        metadata={"group": question.category, "cluster": question.id},
    )


@scorer(metrics={"*": [scored_mean(), num_scored()]})
def points(spec: str, judge_attempts: int) -> Scorer:
    """Score an answer by a judge's points; reasoning is not shown to the judge."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = without_reasoning(state.output.completion).strip()
        judgement = await ask_judge(
            fill(
                read_texts(JUDGE_TEXTS)["prompt"],
                spec=spec,
                question=state.input_text,
                answer=answer,
            ),
            partial(read_points, tag="points", low=LOW, high=HIGH),
            about=state,
            attempts=judge_attempts,
        )
        given = judgement.verdict
        numbers = {
            "points": or_nan(given),
            "points_unreadable": float(given is None),
            **shape_of(state),
        }
        return judged_score(
            judgement,
            numbers,
            question=state.input_text,
            verdict="unreadable" if given is None else f"{given} of {HIGH}",
        )

    return score
