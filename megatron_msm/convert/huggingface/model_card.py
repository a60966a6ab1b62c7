"""The model card of a trained model: where it comes from, stage by stage.

The base model's card says nothing true of the weights any more, but its licence still binds: the
card of an export names the licence and keeps the base's card beside it.
"""

import io
from collections.abc import Mapping, Sequence

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from megatron_msm.formats.checkpoint_folder import EXPORT_FILE, CheckpointState, LineageEntry

CARD_FILE = "README.md"
BASE_CARD_FILE = "BASE_MODEL_README.md"
_KEPT_FIELDS = ("license", "license_name", "license_link", "language", "pipeline_tag")


def model_card(state: CheckpointState, base_card: str | None, run_yaml: str | None) -> str:
    """Return the content of README.md for the export of a trained checkpoint.

    Args:
        state: The checkpoint's.
        base_card: README.md of the folder that was imported, if it had one.
        run_yaml: The resolved configuration of the run, if the checkpoint has one.
    """
    base = state.lineage[0].details.get("source", "unknown")
    sections = [
        _front_matter(base_card, str(base)),
        f"# {state.phase} of {base}\n",
        f"`{base}` ({state.architecture}) after {' -> '.join(_stages(state.lineage))}, step "
        f"{state.iteration} of {state.phase}. Written by megatron-msm; every file's SHA-256 is in "
        f"`{EXPORT_FILE}`.\n",
        f"- checkpoint: `{state.identity}`",
        f"- tokenizer: `{state.tokenizer_sha256}`",
        f"- chat template: `{state.chat_template_sha256}`, the one it was trained with\n",
        "## Lineage\n",
        *(_stage_section(entry) for entry in state.lineage),
    ]
    if base_card is not None:
        sections.append(f"The card of the base model is in [{BASE_CARD_FILE}]({BASE_CARD_FILE}).\n")
    if run_yaml is not None:
        sections.append(f"## Training settings\n\n```yaml\n{run_yaml.strip()}\n```\n")
    versions = ", ".join(f"{name} {version}" for name, version in state.versions.items())
    return "\n".join([*sections, f"Versions: {versions}\n"])


def _stages(lineage: Sequence[LineageEntry]) -> list[str]:
    return [entry.stage for entry in lineage]


def _stage_section(entry: LineageEntry) -> str:
    lines = [f"### {entry.stage}\n", f"- identity: `{entry.identity}`"]
    lines += [f"- {name}: `{_in_line(value)}`" for name, value in entry.details.items()]
    return "\n".join(lines) + "\n"


def _in_line(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _front_matter(base_card: str | None, base: str) -> str:
    kept = {name: value for name, value in _metadata(base_card).items() if name in _KEPT_FIELDS}
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(
        {**kept, "base_model": base, "library_name": "transformers", "tags": ["megatron-msm"]}, text
    )
    return f"---\n{text.getvalue()}---\n"


def _metadata(card: str | None) -> Mapping[str, object]:
    """Return the YAML between the first two `---` lines; nothing when there is none to be read."""
    if card is None or not card.startswith("---\n"):
        return {}
    try:
        found = YAML(typ="safe", pure=True).load(card[4:].partition("\n---")[0])
    except YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
