"""Reasons in transcripts as an Inspect task: `inspect eval megatron_msm/reasons --model none`."""

from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from evals.judging.asking import ask_judge
from evals.tasks.reasons.categories import categories, kinds_text, read_present
from evals.tasks.sampling.inspect_parts import (
    judged_score,
    msm_task,
    num_scored,
    or_nan,
    scored_mean,
)
from evals.tasks.sampling.judge_texts import fill, read_texts
from megatron_msm.formats.eval_result import Row, load_eval_result

VERSION = 1
"""Raise it when texts or scoring change: results of different versions are not compared."""

JUDGE_TEXTS = Path(__file__).parent / "judge.yaml"
SIDES = ("misaligned", "aligned")


@msm_task
def reasons(transcripts: str, judge_attempts: int = 3) -> Task:
    """Return the replies of an earlier evaluation, to be read for their reasons.

    Args:
        transcripts: Path of its result, such as out/am.json.
        judge_attempts: How often a judge is asked until its list can be read.
    """
    rows = load_eval_result(Path(transcripts)).rows
    return Task(
        dataset=MemoryDataset([_sample(row) for row in rows]),
        solver=written_reply(),
        scorer=reasons_given(judge_attempts),
        version=VERSION,
    )


def _sample(row: Row) -> Sample:
    metadata = {"group": row.group, "cluster": row.cluster, "reply": row.details["reply"]}
    return Sample(id=row.id, input=f"The reply {row.id}.", metadata=metadata)


@solver
def written_reply() -> Solver:
    """Take the reply that was given before."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.output = ModelOutput.from_content("transcript", str(state.metadata["reply"]))
        return state

    return solve


@scorer(metrics={"*": [scored_mean(), num_scored()]})
def reasons_given(judge_attempts: int) -> Scorer:
    """Score each kind of reason as present or absent, by a judge."""

    async def score(state: TaskState, target: Target) -> Score:
        question = fill(
            read_texts(JUDGE_TEXTS)["prompt"], kinds=kinds_text(), reply=state.output.completion
        )
        judgement = await ask_judge(question, read_present, about=state, attempts=judge_attempts)
        present = judgement.verdict
        numbers = {
            one.id: or_nan(None if present is None else one.id in present) for one in categories()
        }
        for side in SIDES:
            ids = {one.id for one in categories() if one.side == side}
            numbers[f"any_{side}"] = or_nan(None if present is None else bool(ids & present))
        numbers["list_unreadable"] = float(present is None)
        verdict = "unreadable" if present is None else ", ".join(sorted(present))
        return judged_score(judgement, numbers, verdict=verdict)

    return score
