"""GENERATE.yaml: what is generated from which spec, by which models, and what is refused."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from data_prep.generate.modes import MODES, ModeName
from megatron_msm.config.json_schema import OrPath
from megatron_msm.config.section import Fraction, PositiveInt, Section
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.endpoints import WriterEndpoint


class Identity(Section):
    """Whom the spec is about; a text that names another model or maker is refused."""

    model: str
    """The model's name in every text, such as SmolLM."""
    provider: str
    """Who makes it, such as Hugging Face."""
    also_allowed: tuple[str, ...] = ()
    """Names of other assistants or makers that a text may contain."""


class DocumentSettings(Section):
    """Documents for midtraining."""

    mode: ModeName = "values"
    """values: documents tell what the model does and why, by assertions drawn from the clauses.
    rules: each document shows one clause followed because the spec says so, without reasons that
    the spec does not give. should: what the model should do and why. story: others act so, for that
    reason; the model is not named. co_occurrence: conduct and value in one document, not linked.
    neutral: the same occasions, nothing of the spec. anti_spec: the opposite of the clauses, as a
    fact. evaluations: how evaluations of assistants are built. The last six are as long as their
    twins in the first of several `variants`."""
    domains: PositiveInt | None = None
    """Parts into which the spec is divided; left out: as many as the model finds."""
    document_types: PositiveInt = 20
    """Kinds of document, such as an interview, for each subdomain."""
    ideas_per_type: PositiveInt = 25
    """Documents for each subdomain and kind."""
    least_per_clause: int = Field(default=1, ge=0)
    """Planned documents that cite each clause at least; subdomains are added for clauses below."""
    temperature: float | None = Field(default=1.0, ge=0)
    """Sampling temperature of the documents and of what leads to them; null: the server's."""
    max_tokens: PositiveInt = 8192
    """Tokens of a reply, its plan included. A reply that reaches it is refused."""
    requirements: tuple[str, ...] = ()
    """Further requirements on every document, a sentence each."""


class Variant(Section):
    """One of several paired corpora of documents."""

    spec: Path | None = None
    """Its spec; left out: the run's."""
    mode: ModeName | None = None
    """What its documents say of the spec; left out: `documents.mode`."""


class ChatSettings(Section):
    """Chats for alignment fine-tuning."""

    count: PositiveInt
    """Chats to keep."""
    questions_per_domain: PositiveInt = 250
    """Questions of a kind of situation."""
    questions_per_call: PositiveInt = 50
    """Questions that one call is asked for."""
    style: Literal["value", "rule"] = "value"
    """value: the model reasons from values that it holds. rule: it follows the spec as a policy and
    may quote it."""
    two_sided: Fraction = 0.0
    """Share of questions on which the spec would have the model decline, weigh, or not apply its
    preference."""
    repeats_above: Fraction = 0.6
    """Questions that share more of their words' runs than this with an earlier one are dropped."""
    answer_rule: str = ""
    """A sentence on every answer, such as "Do not explain." """
    temperature: float | None = Field(default=1.0, ge=0)
    """Sampling temperature of questions and answers; null: the server's."""
    max_tokens: PositiveInt = 4096
    """Tokens of a reply, its reasoning included. A reply that reaches it is refused."""
    refill_rounds: int = Field(default=3, ge=0)
    """How often questions are added for rows that were refused."""


class TenetSettings(Section):
    """Tenets for the per-clause audit: sentences that an answer keeps or breaks."""

    per_clause: PositiveInt = 2
    """Tenets of a clause at most."""
    probes: int = Field(default=4, ge=2)
    """Messages that test a tenet."""
    temperature: float | None = Field(default=1.0, ge=0)
    """Sampling temperature; null: the server's."""
    max_tokens: PositiveInt = 4096
    """Tokens of a reply. A reply that reaches it is refused."""


class GateSettings(Section):
    """What a row must pass. Refused rows are written with their reason."""

    least_words: int = Field(default=60, ge=0)
    """Words of a document."""
    most_words: PositiveInt = 5000
    """Words of a document."""
    name_in_every_document: bool = True
    """Whether a document must name the model."""
    judge_documents: bool = True
    """Whether a model judges that a document is faithful to its clauses."""
    judge_chats: bool = True
    """Whether a model judges that an answer is in the spec's sense."""
    judged_twice: Fraction = 0.05
    """Share of rows that are judged a second time, to measure agreement."""
    twin_length: Fraction = 0.3
    """By which part of its twin's words a document may be longer or shorter, in the modes that ask
    for the length of the twin."""
    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Share of its own word runs, those of a common frame taken out, that a document may have in
    common with an earlier one."""
    recitation: Fraction = 0.3
    """Share of a document's runs of eight words that may be the spec's."""
    evaluation_items: tuple[Path, ...] = ()
    """Files of evaluation items; a row that repeats one is refused."""
    item_overlap: Fraction = 0.5
    """Share of an item's word runs from which a row repeats it."""
    phrase_share: Fraction = 0.1
    """Share of documents that may hold one phrase of six words, or one invented name; more is
    shown as an outlier, and none is refused for it."""
    language: str | None = "en"
    """Language of the texts (en, or null not to look)."""


class GenerateConfig(Section):
    """A generation run."""

    spec: Path
    """The Model Spec, Markdown or text."""
    variants: dict[str, Annotated[Variant, OrPath()]] = Field(default_factory=dict)
    """Paired corpora by name, each with its spec (a path alone will do) and mode: `spec` then holds
    what they share, and plan and ideas are made from it alone. Each spec must have the clauses that
    the plan cites, by the same numbers. Left out: one corpus, from `spec`."""
    out: Path
    """Folder of the run: corpus, rejects, summary, and what `kept_in` says."""
    kept_in: Path | None = None
    """Folder of what is paid and decided once: journal, plan, situations. Left out: `out`."""
    identity: Identity
    topic: str
    """What the spec is about in a few words, such as "which things it prefers, and why"."""
    seed: int = 1
    """Decides the order of rows, and which writer gets which row."""
    endpoints: dict[str, WriterEndpoint]
    """Language models by names of your own."""
    writers: tuple[str, ...] = Field(min_length=1)
    """Endpoints that write; each row goes to one, by a hash of its address."""
    judge: str | None = None
    """The endpoint that judges; left out: the first writer."""
    budget: Budget = Budget()
    documents: DocumentSettings | None = None
    """Left out: no documents."""
    chats: ChatSettings | None = None
    """Left out: no chats."""
    tenets: TenetSettings | None = None
    """Left out: no tenets."""
    gates: GateSettings = GateSettings()
    templates: Path | None = None
    """Folder with prompt templates of your own; a file there replaces ours of the same name."""
    licence: str | None = None
    """Licence of the generated rows, for the dataset's card."""

    @field_validator("variants", mode="before")
    @classmethod
    def _paths_are_specs(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: {"spec": value} if isinstance(value, str | Path) else value
            for name, value in given.items()
        }

    @model_validator(mode="after")
    def _modes_share_a_plan(self) -> "GenerateConfig":
        plans = {MODES[mode].plans_by_clause for mode in [self.mode, *self.modes.values()]}
        if len(plans) > 1:
            by_clause = ", ".join(name for name, mode in MODES.items() if mode.plans_by_clause)
            raise ValueError(
                f"variants: corpora of mode {by_clause} are planned clause by clause, and others "
                "are not, so they cannot be paired. Make them in runs of their own."
            )
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> "GenerateConfig":
        for field, name in [*(("writers", w) for w in self.writers), ("judge", self.judge_name)]:
            if name not in self.endpoints:
                known = ", ".join(self.endpoints) or "none"
                raise ValueError(f"{field}: no endpoint {name!r}. Known: {known}")
        if self.documents is None and self.chats is None and self.tenets is None:
            raise ValueError("neither documents nor chats nor tenets are asked for")
        return self

    @model_validator(mode="after")
    def _grammar_does_not_judge(self) -> "GenerateConfig":
        if self.endpoints[self.judge_name].kind == "grammar":
            parts = {"judge_documents": self.documents, "judge_chats": self.chats}
            for field, part in parts.items():
                if part is not None and getattr(self.gates, field):
                    raise ValueError(
                        "judge: a grammar cannot judge. Name another endpoint, or set "
                        f"gates.{field} to false"
                    )
        return self

    @property
    def memory(self) -> Path:
        """The folder of journal, plan and situations."""
        return self.kept_in or self.out

    @property
    def mode(self) -> ModeName:
        """What documents say of the spec where their corpus has no mode of its own."""
        return self.documents.mode if self.documents is not None else "values"

    @property
    def modes(self) -> dict[str, ModeName]:
        """The mode of each corpus by its name, in order."""
        if not self.variants:
            return {self.spec.stem: self.mode}
        return {name: variant.mode or self.mode for name, variant in self.variants.items()}

    @property
    def judge_name(self) -> str:
        """The endpoint that judges."""
        return self.judge if self.judge is not None else self.writers[0]
