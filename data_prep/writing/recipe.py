"""What decides a dataset besides its inputs, and whether a finished one was made the same way."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.reading.inputs import STDIN
from data_prep.reading.read_lines import LineReader
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import FileRecord, sha256_of_text
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.manifest import (
    Counts,
    DatasetManifest,
    InputEntry,
    ShardEntry,
    manifest_path,
    read_manifest,
)


@dataclass(frozen=True)
class Recipe:
    """Kind, tokenizer, template and settings of a preparation."""

    kind: Literal["docs", "chats"]
    tokenizer_sha256: str
    tokenizer_path: str
    vocab_size: int
    settings: JsonObject
    """Options that change the output; as the manifest shows them."""
    eod_id: int | None = None
    chat_template: str | None = None
    shard: ShardEntry | None = None
    backend: str = ""

    @classmethod
    def of(cls, manifest: DatasetManifest) -> "Recipe":
        """Return the recipe that a finished dataset was made by."""
        return cls(
            kind=manifest.kind,
            tokenizer_sha256=manifest.tokenizer_sha256,
            tokenizer_path=manifest.tokenizer_path,
            vocab_size=manifest.vocab_size,
            settings=manifest.settings,
            eod_id=manifest.eod_id,
            chat_template=manifest.chat_template,
            shard=manifest.shard,
            backend=manifest.backend,
        )

    def manifest(
        self, inputs: Sequence[InputEntry], *, counts: Counts, files: dict[str, FileRecord]
    ) -> DatasetManifest:
        """Return the manifest of the finished dataset."""
        template = self.chat_template
        return DatasetManifest(
            kind=self.kind,
            tokenizer_sha256=self.tokenizer_sha256,
            tokenizer_path=self.tokenizer_path,
            chat_template_sha256=None if template is None else sha256_of_text(template),
            chat_template=template,
            vocab_size=self.vocab_size,
            eod_id=self.eod_id,
            settings=self.settings,
            backend=self.backend,
            shard=self.shard,
            counts=counts,
            inputs=tuple(inputs),
            files=files,
        )

    def differences(self, other: "Recipe") -> list[str]:
        """Name what differs from another recipe in a way that can change the output."""
        if self.kind != other.kind:
            return [f"kind ({other.kind} there, {self.kind} here)"]
        names = ("tokenizer_sha256", "eod_id", "chat_template")
        differing = [name for name in names if getattr(self, name) != getattr(other, name)]
        keys = sorted(self.settings.keys() | other.settings.keys())
        return differing + [
            f"{key} ({other.settings.get(key)!r} there, {self.settings.get(key)!r} here)"
            for key in keys
            if self.settings.get(key) != other.settings.get(key)
        ]


def find_finished(
    prefix: Path, recipe: Recipe, reader: LineReader, *, max_rejects: int
) -> DatasetManifest | None:
    """Return the finished dataset at `prefix` if it is what this run would make.

    Inputs are compared by path and content: the provenance rows name the paths.

    Returns:
        Its manifest, or None when there is no finished dataset yet.

    Raises:
        DataFormatError: Another dataset is there, or a damaged one.
    """
    if not manifest_path(prefix).exists():
        return None
    try:
        manifest = read_manifest(prefix)
    except DataFormatError as error:
        if recipe.shard is not None:  # its name is ours alone: a torn shard is made again
            return None
        raise DataFormatError(f"{error} Replace it with --force.") from None
    differing = recipe.differences(Recipe.of(manifest))
    if not differing and manifest.shard != recipe.shard:
        differing = ["the list of inputs, or the shard"]
    if not differing:
        differing = _changed_inputs(manifest, reader)
    num_rejects = manifest.counts.rejected - manifest.counts.overlong_dropped
    if not differing and num_rejects > max_rejects:
        differing = [f"its {num_rejects} rejected lines, over --max-rejects"]
    if differing:
        raise DataFormatError(
            f"{prefix}: a finished dataset is here, and it differs from what was asked for in "
            f"{'; '.join(differing)}. Choose another --out, or replace it with --force."
        )
    return manifest


def _changed_inputs(manifest: DatasetManifest, reader: LineReader) -> list[str]:
    paths = [part.path for part in reader.parts]
    if [entry.path for entry in manifest.inputs] != [str(path) for path in paths]:
        return ["the list of inputs"]
    if STDIN in paths:
        return ["standard input, which cannot be compared"]
    now = reader.hash_inputs()
    return [
        f"the content of {new.path}"
        for new, old in zip(now, manifest.inputs, strict=True)
        if new != old
    ]
