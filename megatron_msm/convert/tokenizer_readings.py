"""A tokenizer has two readings: tokenizer.json, and the class that transformers makes of a folder.

transformers 5 takes the class that `model_type` names, and puts that class's own normalisation and
splitting in the place of what tokenizer.json says. Data are prepared by tokenizer.json; a model is
served by what `AutoTokenizer` gives. Where the two differ, both are named.
"""

from collections.abc import Iterator
from pathlib import Path

from megatron_msm.convert.huggingface.causal_lm import transformers_for
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from megatron_msm.formats.tokenizer_probes import encoder_probes

_SHOWN = 40


def difference_of_tokenizers(folder: Path) -> str | None:
    """Encode awkward texts by both readings.

    Returns:
        A sentence that names the first text that they encode differently, or why transformers
        cannot load it; None when they agree.

    Raises:
        CheckpointError: tokenizer.json cannot be read.
        MissingExtraError: transformers is not installed.
    """
    files = read_tokenizer_files(folder)
    ours = load_tokenizer(files, control_tokens_as_text=False)
    try:
        with transformers_for(folder) as transformers:
            theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except CheckpointError as error:
        return f"tokenizer: {error}"

    def ids(text: str) -> tuple[list[int], list[int]]:
        found: list[int] = theirs.encode(text, add_special_tokens=False)
        return ours.encode(text, add_special_tokens=False).ids, found

    name = f"{type(theirs).__name__} of transformers {transformers.__version__}"
    texts = [probe.decode() for probe in encoder_probes(files.added_tokens)]
    for text in texts:
        try:
            trained, served = ids(text)
        except Exception as error:  # the tokenizers library raises no narrower class
            return f"tokenizer: {text[:_SHOWN]!a} cannot be encoded by {name}: {error}"
        if trained == served:
            continue
        shortest = next((part for part in _parts(text) if len({*map(tuple, ids(part))}) > 1), text)
        trained, served = ids(shortest)
        return (
            f"tokenizer: {shortest[:_SHOWN]!a} is {_shown(trained)} by tokenizer.json, which is "
            f"what is trained on, and {_shown(served)} by {name}"
        )
    return None


def _parts(text: str) -> Iterator[str]:
    yield from dict.fromkeys(text)
    yield from text.split(" ")


def _shown(ids: list[int]) -> str:
    more = ", ..." if len(ids) > _SHOWN // 4 else ""
    return f"[{', '.join(map(str, ids[: _SHOWN // 4]))}{more}]"
