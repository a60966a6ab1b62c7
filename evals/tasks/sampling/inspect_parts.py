"""Parts of Inspect tasks that several evaluations use: the task, its solver, scores, metrics."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, metric
from inspect_ai.solver import Generate, Solver, TaskState, solver

from evals.judging.asking import Judgement, check_judge
from evals.tasks.sampling.progress import ON_SCORED

Parameters = ParamSpec("Parameters")


def msm_task(build: Callable[Parameters, Task]) -> Callable[Parameters, Task]:
    """Register a function that builds a task as `megatron_msm/NAME`.

    Inspect puts the function's top-level package before its name: `evals/` when installed, nothing
    in a checkout. The distribution's name is what users know, and is the same in both.
    """
    build.__module__ = "megatron_msm"
    return task(build)


def reply_seed(seed: int, sample_id: str, epoch: int) -> int:
    """Return the seed of one reply: its own for each prompt and repetition, 31 bits."""
    digest = hashlib.sha256(f"{seed}/{sample_id}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


@solver
def seeded_reply(seed: int) -> Solver:
    """Ask for one reply, drawn from a random stream of its own."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        check_judge()
        own = reply_seed(seed, str(state.sample_id), state.epoch)
        return await generate(state, seed=own)

    return solve


def sampled_task(
    samples: Sequence[Sample],
    scorer: Scorer,
    *,
    version: int,
    seed: int,
    epochs: int,
    temperature: float,
    max_tokens: int,
) -> Task:
    """Return a task in which every sample is answered freely, a number of times."""
    return Task(
        dataset=MemoryDataset(list(samples)),
        solver=seeded_reply(seed),
        scorer=scorer,
        config=GenerateConfig(temperature=temperature, max_tokens=max_tokens),
        epochs=epochs,
        version=version,
    )


def judged_score(judgement: Judgement[Any], numbers: Mapping[str, float], **shown: Any) -> Score:
    """Return a judged reply's numbers with what the judge said, and count the reply as scored.

    Args:
        judgement: The judge's.
        numbers: By metric; NaN where the reply could not be scored.
        shown: What a reader of transcripts sees beside the reply.
    """
    ON_SCORED.get()()
    return Score(
        value=dict(numbers),
        explanation=judgement.replies[-1],
        metadata={**shown, **judgement.details},
    )


@metric
def scored_mean() -> Metric:
    """Return the mean over what could be scored; NaN where nothing could."""

    def compute(scores: list[SampleScore]) -> float:
        numbers = _scored(scores)
        return math.fsum(numbers) / len(numbers) if numbers else math.nan

    return compute


@metric
def num_scored() -> Metric:
    """Return how many could be scored: the denominator of `scored_mean`."""

    def compute(scores: list[SampleScore]) -> float:
        return len(_scored(scores))

    return compute


def _scored(scores: list[SampleScore]) -> list[float]:
    numbers = [one.score.as_float() for one in scores]
    return [number for number in numbers if not math.isnan(number)]


def shape_of(state: TaskState) -> dict[str, float]:
    """Return the numbers of `SHAPE_COLUMNS`: whether the reply was cut off, and its length."""
    usage = state.output.usage
    return {
        "cut_off": float(state.output.stop_reason in ("max_tokens", "model_length")),
        "reply_tokens": or_nan(usage.output_tokens if usage else None),
    }


def or_nan(number: float | None) -> float:
    """Return NaN for None: what Inspect writes for "not scored", and its metrics pass over."""
    return math.nan if number is None else float(number)
