"""`msm prep merge`: several finished datasets to one, as if prepared in one run.

Every file of the result, the manifest included, equals that run's byte for byte. Tokens are copied
in large pieces and the other files are written anew, so it takes as long as copying.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.writing.dataset_writer import DatasetWriter, open_writer, refuse_foreign_files
from data_prep.writing.encoded_block import EncodedBlock
from data_prep.writing.join_inputs import all_inputs
from data_prep.writing.prepared import Prepared
from data_prep.writing.recipe import Recipe
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset, mask_prefix, token_dtype
from megatron_msm.formats.manifest import (
    Counts,
    DatasetManifest,
    InputEntry,
    dataset_file,
    manifest_path,
    read_manifest,
)
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance_tables
from megatron_msm.formats.rejects import REJECTS_SUFFIX, read_rejects
from megatron_msm.progress import SILENT, Progress

_SHARD_NAME = re.compile(r"-\d{5}-of-\d{5}\.manifest\.json$")


def merge_datasets(
    prefixes: list[Path],
    out: Path,
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> Prepared:
    """Concatenate datasets into the dataset `out`: shards by their number, others as given.

    Args:
        prefixes: Finished datasets of one kind, tokenizer, template and settings.
        out: Prefix of the result.
        force: Replace what is there.
        progress: Told the number of rows just copied.

    Raises:
        DataFormatError: The datasets do not fit together, or another one is in the way.
    """
    sources = [(prefix, read_manifest(prefix)) for prefix in prefixes]
    if all(manifest.shard is not None for _, manifest in sources):
        sources.sort(key=lambda source: source[1].shard.index if source[1].shard else 0)
    prefixes, manifests = [source[0] for source in sources], [source[1] for source in sources]
    recipe = _common_recipe(prefixes, manifests)
    inputs = all_inputs(prefixes, manifests)
    if not force:
        refuse_foreign_files(out)
        if manifest_path(out).exists():
            existing = _same_or_refuse(out, recipe, inputs, manifests)
            return Prepared(out, existing, already_made=True)
    has_mask = recipe.kind == "chats"
    dtype, carry = token_dtype(recipe.vocab_size), manifests[0].carry
    with open_writer(out, dtype=dtype, has_mask=has_mask, carry=carry) as writer:
        for prefix, manifest in sources:
            _copy(prefix, manifest, writer, progress)
        return Prepared(out, writer.publish(recipe, inputs), already_made=False)


def with_shards(prefixes: Sequence[Path], out: Path) -> list[Path]:
    """Replace each prefix that names no dataset, or is `out`, by the shards that are there.

    Raises:
        DataFormatError: There are none.
    """
    found: list[Path] = []
    for prefix in prefixes:
        if prefix != out and manifest_path(prefix).exists():
            found.append(prefix)
            continue
        paths = prefix.parent.glob(f"{_escaped(prefix.name)}-*.manifest.json")
        shards = sorted(path for path in paths if _SHARD_NAME.search(path.name))
        if not shards:
            read_manifest(prefix)
            raise DataFormatError(
                f"{prefix}: is to be the result of the merge and has no shards "
                f"({prefix.name}-00000-of-0000N). Make them with --shard i/N, or name other "
                "datasets."
            )
        found += [Path(str(path).removesuffix(".manifest.json")) for path in shards]
    return found


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _copy(
    prefix: Path,
    manifest: DatasetManifest,
    writer: DatasetWriter,
    progress: Progress,
) -> None:
    tokens = IndexedDataset(prefix)
    masks = IndexedDataset(mask_prefix(prefix)) if manifest.kind == "chats" else None
    first = 0
    for table in read_provenance_tables(dataset_file(prefix, PROVENANCE_SUFFIX)):
        stop = first + table.num_rows
        span = tokens.span(first, stop)
        mask = None if masks is None else masks.span(first, stop).astype(np.uint8, copy=False)
        rows = EncodedBlock(
            tokens=span,
            lengths=tokens.lengths[first:stop],
            mask=mask,
            provenance=table,
            rejects=[],
            counts=Counts(
                kept=table.num_rows,
                tokens=len(span),
                loss_tokens=len(span) if mask is None else int(mask.sum(dtype=np.int64)),
            ),
        )
        writer.add_block(rows, num_lines=table.num_rows)
        progress.advance(table.num_rows)
        first = stop
    writer.add_rejects(read_rejects(dataset_file(prefix, REJECTS_SUFFIX)), manifest.counts)


def _common_recipe(prefixes: list[Path], manifests: list[DatasetManifest]) -> Recipe:
    recipe = Recipe.of(manifests[0])
    for prefix, manifest in zip(prefixes, manifests, strict=True):
        differing = recipe.differences(Recipe.of(manifest))
        if differing:
            raise DataFormatError(
                f"{prefix}: cannot be merged with {prefixes[0]}: they differ in "
                f"{'; '.join(differing)}. Prepare both with the same tokenizer and options."
            )
    backends = ", ".join(sorted({manifest.backend for manifest in manifests}))
    return replace(recipe, shard=None, backend=backends)


def _same_or_refuse(
    out: Path, recipe: Recipe, inputs: list[InputEntry], manifests: list[DatasetManifest]
) -> DatasetManifest:
    existing = read_manifest(out)
    counts = sum((manifest.counts for manifest in manifests), Counts())
    if (
        not recipe.differences(Recipe.of(existing))
        and list(existing.inputs) == inputs
        and existing.counts == counts
    ):
        return existing
    raise DataFormatError(
        f"{out}: another finished dataset is here. Choose another --out, or replace it with "
        "--force."
    )
