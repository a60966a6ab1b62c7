"""What a reader must know beside a verdict: what could make it look better or worse than it is."""

from collections.abc import Iterable, Iterator

from evals.report.comparison import Evaluation, Line
from evals.report.training import unmatched
from megatron_msm.formats.eval_result import ModelRecord

FLIPS = "flips"
"""Metric of tasks that list options in both orders: the share in which the order decides."""
MANY_FLIPS, MANY_UNSCORED = 0.25, 0.05


def arm_caveats(line: Line) -> list[str]:
    """Return what to know of one arm's numbers over all items."""
    found = []
    summary = line.summary
    total = summary.n + summary.num_unscored
    if total and summary.num_unscored / total > MANY_UNSCORED:
        share = summary.num_unscored / total
        found.append(f"{share:.0%} of its items could not be scored and are not in its number")
    flips = [of for metric, of in line.others if metric.name == FLIPS]
    if flips and flips[0].estimate >= MANY_FLIPS:
        share = flips[0].estimate
        found.append(f"order flips: in {share:.0%} of its items the order of the options decides")
    return found


def evaluation_caveats(evaluation: Evaluation) -> Iterator[str]:
    """Yield what to know of an evaluation's arms and contrasts."""
    lines = dict(zip(evaluation.arms, evaluation.groups[None], strict=True))
    for arm, line in lines.items():
        yield from (f"{line.label}: {text}" for text in arm_caveats(line))
        num_results = len(evaluation.arms[arm])
        if num_results > line.num_seeds:
            yield (
                f"{arm}: {num_results} results of {line.num_seeds} checkpoints: some are repeats, "
                "which are no training seeds"
            )
        if any(result.model.weights_sha256 is None for result in evaluation.arms[arm]):
            yield f"{line.label}: the weights are unknown, since a server answered or a log is read"
    for asked in evaluation.contrasts:
        arms = [arm for arm in evaluation.arms if arm in asked.overall.found.num_seeds]
        models = _models(evaluation, arms)
        yield from (f"{asked.name}: training is NOT MATCHED: {one}" for one in unmatched(models))


def _models(evaluation: Evaluation, arms: Iterable[str]) -> list[ModelRecord]:
    return [result.model for arm in arms for result in evaluation.arms[arm]]
