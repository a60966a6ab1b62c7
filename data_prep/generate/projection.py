"""What a run will make and cost, before it does: from the plan, and from replies so far if any."""

from typing import NamedTuple

from data_prep.generate.modes import MODES
from data_prep.generate.plan import CorpusPlan
from data_prep.generate.settings import GenerateConfig
from megatron_msm.llm.call import Usage
from megatron_msm.llm.journal import Journal, Spent
from megatron_msm.llm.prices import cost_usd

_ASSUMED = {
    # Tokens in and out of a call, where no reply is there yet to measure: guesses, but for the
    # length of a document, which is near the mean of the paper's published corpora.
    "assertions": (900, 600),
    "document types": (700, 900),
    "ideas": (900, 1800),
    "documents": (1500, 3200),
    "judge": (3900, 80),
    "questions": (1200, 2000),
    "answers": (900, 700),
    "judge answers": (1600, 80),
}


class ProjectedStep(NamedTuple):
    """Calls of one step."""

    step: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None where the price is not known."""
    is_measured: bool
    """Whether the tokens of a call are a mean over replies of this run."""


def project(
    config: GenerateConfig, plan: CorpusPlan | None, journal: Journal
) -> list[ProjectedStep]:
    """Return the steps that follow the plan, without repeats and refills.

    Args:
        config: The run's.
        plan: Its plan; None where there are no documents.
        journal: Its replies so far.
    """
    steps: list[tuple[str, str, int, str]] = []
    if config.documents is not None and plan is not None:
        parts = len(list(plan.subdomains()))
        ideas = parts * config.documents.document_types
        documents = ideas * config.documents.ideas_per_type
        with_assertions = _specs_asserted(config)
        if with_assertions:
            steps.append(("assertions", "assertions", parts * with_assertions, config.writers[0]))
        steps.append(("document types", "document types", parts, config.writers[0]))
        steps.append(("ideas", "ideas", ideas, config.writers[0]))
        for name in config.modes:
            steps.append(("documents", f"documents {name}", documents, config.writers[0]))
            if config.gates.judge_documents:
                judged = round(documents * (1 + config.gates.judged_twice))
                steps.append(("judge", f"judge {name}", judged, config.judge_name))
    if config.chats is not None:
        count = config.chats.count
        batches = -(-count // config.chats.questions_per_call)
        steps.append(("questions", "questions", batches, config.writers[0]))
        steps.append(("answers", "answers", count, config.writers[0]))
        if config.gates.judge_chats:
            judged = round(count * (1 + config.gates.judged_twice))
            steps.append(("judge answers", "judge answers", judged, config.judge_name))
    return [_step(config, journal, *step) for step in steps]


def _specs_asserted(config: GenerateConfig) -> int:
    """Return of how many specs assertions are asked: corpora of one spec share theirs."""
    shown = [name for name, mode in config.modes.items() if "assertions" in MODES[mode].shows]
    if not config.variants:
        return len(shown)
    return len({config.variants[name].spec or config.spec for name in shown})


def _step(
    config: GenerateConfig, journal: Journal, kind: str, step: str, calls: int, endpoint: str
) -> ProjectedStep:
    spent = journal.spent.get(step, Spent())
    per_call = _ASSUMED[kind]
    if spent.calls:
        per_call = (spent.input_tokens // spent.calls, spent.output_tokens // spent.calls)
    usage = Usage(calls * per_call[0], calls * per_call[1])
    cost = cost_usd(usage, config.endpoints[endpoint])
    return ProjectedStep(
        step, calls, usage.input_tokens, usage.output_tokens, cost, bool(spent.calls)
    )
