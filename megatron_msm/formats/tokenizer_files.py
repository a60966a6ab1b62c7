"""The tokenizer of a Hugging Face folder, read as data: no transformers import.

transformers 4 and 5 lay the same facts out differently: a special token is a text or a dict, the
chat template a file or a field, and what tokenizer_config.json does not say may be in
special_tokens_map.json. The rest of the program sees one `TokenizerFiles`.

A *control token* is an added token that steers the model rather than being text: one flagged
`special` in tokenizer.json, or spelled `<|...|>`. Text that happens to spell one must not become
one; `load_tokenizer(..., control_tokens_as_text=True)` sees to that.
"""

import gc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, cast

import orjson
from tokenizers import Tokenizer

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.fetched_models import fetch_hint
from megatron_msm.formats.files import sha256_of_json, sha256_of_text
from megatron_msm.formats.json_types import JsonObject, JsonValue

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
_NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_CONTROL_SHAPES = (("<|", "|>"), ("<｜", "｜>"))  # noqa: RUF001 (DeepSeek spells them full-width)


class AddedToken(TypedDict):
    """A token that is matched in the text before the model sees it."""

    id: int
    content: str
    special: bool


class PreTokenizer(TypedDict, total=False):
    """What splits a text into words, or a sequence of such."""

    type: str
    pretokenizers: list["PreTokenizer"] | None


class TokenizerModel(TypedDict, total=False):
    """The vocabulary and how words are built from it."""

    vocab: dict[str, int] | list[tuple[str, float]]
    """Ids by token; for Unigram pieces and their scores in order of ids."""
    merges: list[str] | list[list[str]] | None
    unk_token: str | None
    unk_id: int | None


class TokenizerJson(TypedDict, total=False):
    """The fields of tokenizer.json that are read; what is left of it goes to tokenizers as it is.

    Source: tokenizers 0.23, `Tokenizer.to_str`.
    """

    added_tokens: list[AddedToken] | None
    model: Required[TokenizerModel]
    pre_tokenizer: PreTokenizer | None


@dataclass(frozen=True)
class TokenizerFiles:
    """What a tokenizer folder says."""

    path: Path
    """The tokenizer.json."""
    tokenizer_sha256: str
    """Hash of tokenizer.json as canonical JSON, so that its formatting does not matter."""
    chat_template: str | None
    chat_template_sha256: str | None
    eos_token: str | None
    eos_id: int | None
    bos_token: str | None
    bos_id: int | None
    pad_token: str | None
    pad_id: int | None
    vocab_size: int
    """Entries including added tokens; never less than the largest id + 1."""
    special_tokens: Mapping[str, str | list[str]]
    """What a chat template may refer to: `eos_token`, ..., `additional_special_tokens`."""
    added_tokens: Mapping[str, int]
    """Every added token's text and id."""
    control_tokens: Mapping[str, int]
    """The added tokens that are control tokens."""
    model_unk_id: int | None
    """What the model makes of text that it cannot spell; None for byte-level models."""
    missing_bytes: bytes = b""
    """Bytes for which a byte-level vocabulary has no token: the tokenizer leaves them out."""

    @property
    def folder(self) -> Path:
        """The folder the files are in."""
        return self.path.parent

    def num_lost_bytes(self, text: bytes) -> int:
        """Return how many bytes of a UTF-8 text the tokenizer leaves out."""
        if not self.missing_bytes:
            return 0
        return len(text) - len(text.translate(None, self.missing_bytes))

    def require_id(self, token: str, *, what: str) -> int:
        """Return the id of an added token.

        Raises:
            CheckpointError: The tokenizer has no such token.
        """
        if token not in self.added_tokens:
            known = ", ".join(list(self.added_tokens)[:12]) or "none"
            raise CheckpointError(
                f"{self.path}: {what} {token!r} is not an added token of the tokenizer. "
                f"Name one of them, for example: {known}."
            )
        return self.added_tokens[token]


def read_tokenizer_json(folder: Path) -> TokenizerJson:
    """Read the tokenizer.json of a folder, for who needs both its content and `TokenizerFiles`.

    Args:
        folder: The folder, or the tokenizer.json in it.

    Raises:
        CheckpointError: There is none, or it is broken.
    """
    path = _tokenizer_path(folder)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file.{fetch_hint(path.parent)} Give a Hugging Face folder that has a "
            f"{TOKENIZER_FILE}; a slow tokenizer gets one by "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    was_enabled = gc.isenabled()
    gc.disable()  # looking for cycles among 150,000 new lists of merges takes as long as parsing
    try:
        content = _read_json(path)
    finally:
        if was_enabled:
            gc.enable()
    _check_added_tokens(path, content)
    _check_vocabulary(path, content)
    return cast(TokenizerJson, content)


def read_tokenizer_files(folder: Path, *, content: TokenizerJson | None = None) -> TokenizerFiles:
    """Read a tokenizer folder as transformers 4 or 5 writes it.

    Args:
        folder: The folder, or the tokenizer.json in it.
        content: What `read_tokenizer_json` returned, if that was called already.

    Raises:
        CheckpointError: A file is missing or broken; names the file and the field.
    """
    path = _tokenizer_path(folder)
    folder = path.parent
    content = read_tokenizer_json(folder) if content is None else content
    config = _read_json(folder / CONFIG_FILE, required=False)
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    vocab = _vocabulary(content)
    named = _named_tokens(folder, config)
    ids = {name: _token_id(folder, name, text, added, vocab) for name, text in named.items()}
    template = _chat_template(folder, config)
    largest = max((*vocab.values(), *added.values()), default=-1)
    return TokenizerFiles(
        path=path,
        tokenizer_sha256=sha256_of_json(cast(JsonObject, content)),  # all of it, as it was read
        chat_template=template,
        chat_template_sha256=None if template is None else sha256_of_text(template),
        eos_token=named.get("eos_token"),
        eos_id=ids.get("eos_token"),
        bos_token=named.get("bos_token"),
        bos_id=ids.get("bos_token"),
        pad_token=named.get("pad_token"),
        pad_id=ids.get("pad_token"),
        vocab_size=max(len(vocab.keys() | added.keys()), largest + 1),
        special_tokens={**named, **_additional_tokens(folder, config)},
        added_tokens=added,
        control_tokens=_control_tokens(content),
        model_unk_id=_model_unk_id(content, vocab, added),
        missing_bytes=_missing_bytes(content, vocab),
    )


def load_tokenizer(
    files: TokenizerFiles,
    *,
    control_tokens_as_text: bool,
    more_control: Collection[str] = (),
    content: TokenizerJson | None = None,
) -> Tokenizer:
    """Return the tokenizer, with truncation and padding off.

    Args:
        files: What `read_tokenizer_files` returned.
        control_tokens_as_text: Encode text that spells a control token as plain text.
        more_control: Further added tokens to be treated as control tokens.
        content: What `read_tokenizer_json` returned, if that was called already; is changed.

    Raises:
        CheckpointError: The tokenizers library cannot read the file.
    """
    control = {*files.control_tokens, *more_control} if control_tokens_as_text else set()
    try:
        content = read_tokenizer_json(files.path) if content is None else content
        tokenizer = Tokenizer.from_str(_for_loading(files.path, content, control))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"{files.path}: the tokenizers library cannot read it: {error}. "
            "Save it again with transformers, or update tokenizers."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = control_tokens_as_text
    return tokenizer


def _for_loading(path: Path, content: TokenizerJson, control: Collection[str]) -> str:
    """Return the tokenizer.json with these added tokens flagged as special.

    Merges are written as one text each, which tokenizers loads a third faster.
    """
    unmarked = [
        token
        for token in content.get("added_tokens") or ()
        if token["content"] in control and not token["special"]
    ]
    merges = content["model"].get("merges") or []
    are_joined = all(type(merge) is list for merge in merges) and not any(
        " " in part for merge in merges for part in merge
    )
    if not unmarked and not (merges and are_joined):
        return path.read_text(encoding="utf-8")
    for token in unmarked:
        token["special"] = True
    if are_joined:
        content["model"]["merges"] = [" ".join(merge) for merge in merges]
    return orjson.dumps(content).decode()


def _tokenizer_path(folder: Path) -> Path:
    return folder if folder.name == TOKENIZER_FILE else folder / TOKENIZER_FILE


def _read_json(path: Path, *, required: bool = True) -> JsonObject:
    if not required and not path.is_file():
        return {}
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is no file that could be read. Remove or replace it.")
    try:
        content: JsonValue = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as JSON ({error}). Copy the file from its source again."
        ) from None
    if not isinstance(content, dict):
        raise _wrong(path, "the whole file", content, "an object")
    return content


def _wrong(path: Path, field: str, value: object, needed: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {field} is {str(value)[:60]!r}, but {needed} is needed. Repair the file, or save "
        "the tokenizer again with transformers."
    )


def _check_added_tokens(path: Path, content: JsonObject) -> None:
    tokens = content.get("added_tokens") or []
    if not isinstance(tokens, list):
        raise _wrong(path, "added_tokens", tokens, "a list")
    for index, token in enumerate(tokens):
        if not (
            isinstance(token, dict)
            and isinstance(token.get("content"), str)
            and isinstance(token.get("id"), int)
            and isinstance(token.get("special"), bool)
        ):
            raise _wrong(
                path, f"added_tokens[{index}]", token, "an object with id, content, special"
            )


def _control_tokens(content: TokenizerJson) -> dict[str, int]:
    return {
        token["content"]: token["id"]
        for token in content.get("added_tokens") or ()
        if token["special"] or _has_control_shape(token["content"])
    }


def _has_control_shape(text: str) -> bool:
    return any(text.startswith(start) and text.endswith(end) for start, end in _CONTROL_SHAPES)


def _check_vocabulary(path: Path, content: JsonObject) -> None:
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict | list):
        raise _wrong(path, "model.vocab", vocab, "an object or a list")


def _vocabulary(content: TokenizerJson) -> dict[str, int]:
    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        return {piece: index for index, (piece, _) in enumerate(vocab)}
    return vocab


def _model_unk_id(
    content: TokenizerJson, vocab: dict[str, int], added: dict[str, int]
) -> int | None:
    model = content["model"]
    text = model.get("unk_token")
    if isinstance(text, str):
        return added.get(text, vocab.get(text))
    unk_id = model.get("unk_id")  # Unigram
    return unk_id if isinstance(unk_id, int) else None


def byte_characters() -> list[str]:
    """Return the character that a byte-level vocabulary writes for each byte.

    Printable bytes stand for themselves, the others are moved above U+0100.
    Source: GPT-2's `bytes_to_unicode`.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(moved)) for byte in range(256)]


def _missing_bytes(content: TokenizerJson, vocab: dict[str, int]) -> bytes:
    steps: PreTokenizer = content.get("pre_tokenizer") or {}
    types = [step.get("type") for step in (steps, *(steps.get("pretokenizers") or ()))]
    if "ByteLevel" not in types:
        return b""
    return bytes(byte for byte, char in enumerate(byte_characters()) if char not in vocab)


def _named_tokens(folder: Path, config: JsonObject) -> dict[str, str]:
    fallback = _read_json(folder / MAP_FILE, required=False)
    named: dict[str, str] = {}
    for name in _NAMED_TOKENS:
        file, source = (CONFIG_FILE, config) if config.get(name) else (MAP_FILE, fallback)
        value = source.get(name)
        if value:
            named[name] = _token_text(folder / file, name, value)
    return named


def _additional_tokens(folder: Path, config: JsonObject) -> dict[str, list[str]]:
    name = "additional_special_tokens"
    fallback = _read_json(folder / MAP_FILE, required=False)
    file, source = (CONFIG_FILE, config) if config.get(name) else (MAP_FILE, fallback)
    values = source.get(name)
    if not values:
        return {}
    if not isinstance(values, list):
        raise _wrong(folder / file, name, values, "a list")
    return {name: [_token_text(folder / file, name, value) for value in values]}


def _token_text(path: Path, field: str, value: object) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise _wrong(path, field, value, "a text, or an object with a text in content,")
    return text


def _token_id(
    folder: Path, name: str, text: str, added: dict[str, int], vocab: dict[str, int]
) -> int:
    found = added.get(text, vocab.get(text))
    if found is None:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {name} is {text!r}, which {TOKENIZER_FILE} does not contain. "
            "The two files do not belong together; copy both from the same model."
        )
    return found


def _chat_template(folder: Path, config: JsonObject) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: not UTF-8 ({error}). Save it as UTF-8.") from None
    value = config.get("chat_template")
    if isinstance(value, list):  # several templates by name, as transformers 4 could write them
        entries = [entry for entry in value if isinstance(entry, dict)]
        named = {str(entry.get("name")): entry.get("template") for entry in entries}
        value = named.get("default")
        if value is None:
            raise CheckpointError(
                f"{folder / CONFIG_FILE}: chat_template has {', '.join(map(str, named))} and no "
                f"'default'. Write the one to be used to {path}."
            )
    if value is not None and not isinstance(value, str):
        raise _wrong(folder / CONFIG_FILE, "chat_template", value, "a text")
    return value
