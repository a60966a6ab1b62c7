"""`msm prep merge`: several finished datasets to one, as if prepared in one run.

Every file of the result, the manifest included, equals that run's byte for byte.
"""

from collections.abc import Callable
from pathlib import Path

from data_prep.dataset_writer import DatasetWriter, open_writer, refuse_foreign_files
from data_prep.outcome import Prepared
from data_prep.recipe import Recipe
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
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance
from megatron_msm.formats.rejects import REJECTS_SUFFIX, read_rejects


def merge_datasets(
    prefixes: list[Path],
    out: Path,
    *,
    force: bool = False,
    on_row: Callable[[int], None] | None = None,
) -> Prepared:
    """Concatenate datasets, in this order, into the dataset `out`.

    Args:
        prefixes: Finished datasets of one kind, tokenizer, template and settings.
        out: Prefix of the result.
        force: Replace what is there.
        on_row: Called with 1 for every row copied, for a progress bar.

    Raises:
        DataFormatError: The datasets do not fit together, or another one is in the way.
    """
    manifests = [read_manifest(prefix) for prefix in prefixes]
    recipe = _common_recipe(prefixes, manifests)
    inputs = _all_inputs(prefixes, manifests)
    if not force:
        refuse_foreign_files(out)
        if manifest_path(out).exists():
            return Prepared(_same_or_refuse(out, recipe, inputs, manifests), already_made=True)
    has_mask = recipe.kind == "chats"
    dtype, carry = token_dtype(recipe.vocab_size), recipe.settings.get("carry", ())
    with open_writer(out, dtype=dtype, has_mask=has_mask, carry=carry) as writer:
        for prefix, manifest in zip(prefixes, manifests, strict=True):
            _copy(prefix, manifest, writer, on_row)
        return Prepared(writer.publish(recipe, inputs), already_made=False)


def _copy(
    prefix: Path,
    manifest: DatasetManifest,
    writer: DatasetWriter,
    on_row: Callable[[int], None] | None,
) -> None:
    tokens = IndexedDataset(prefix)
    masks = IndexedDataset(mask_prefix(prefix)) if manifest.kind == "chats" else None
    for row, provenance in enumerate(read_provenance(dataset_file(prefix, PROVENANCE_SUFFIX))):
        mask = None if masks is None else masks[row].astype("uint8", copy=False)
        writer.add(tokens[row], provenance, mask)
        if on_row is not None:
            on_row(1)
    for reject in read_rejects(dataset_file(prefix, REJECTS_SUFFIX)):
        writer.reject(reject)
    writer.skip_blank(manifest.counts.blank)
    writer.overlong_dropped += manifest.counts.overlong_dropped
    writer.overlong_truncated += manifest.counts.overlong_truncated
    writer.join_rows(manifest.counts.extra_rows)


def _common_recipe(prefixes: list[Path], manifests: list[DatasetManifest]) -> Recipe:
    recipe = Recipe.of(manifests[0])
    for prefix, manifest in zip(prefixes, manifests, strict=True):
        differing = recipe.differences(Recipe.of(manifest))
        if differing:
            raise DataFormatError(
                f"{prefix}: cannot be merged with {prefixes[0]}: they differ in "
                f"{'; '.join(differing)}. Prepare both with the same tokenizer and options."
            )
    return recipe


def _all_inputs(prefixes: list[Path], manifests: list[DatasetManifest]) -> list[InputEntry]:
    owner: dict[str, Path] = {}
    for prefix, manifest in zip(prefixes, manifests, strict=True):
        for entry in manifest.inputs:
            if entry.path in owner:
                raise DataFormatError(
                    f"{prefix}: its input {entry.path} is also in {owner[entry.path]}, so its rows "
                    "would be there twice. Merge datasets of different inputs."
                )
        owner |= {entry.path: prefix for entry in manifest.inputs}
    return [entry for manifest in manifests for entry in manifest.inputs]


def _same_or_refuse(
    out: Path, recipe: Recipe, inputs: list[InputEntry], manifests: list[DatasetManifest]
) -> DatasetManifest:
    existing = read_manifest(out)
    fields = Counts.model_fields
    counts = {name: sum(getattr(m.counts, name) for m in manifests) for name in fields}
    if (
        not recipe.differences(Recipe.of(existing))
        and list(existing.inputs) == inputs
        and existing.counts.model_dump() == counts
    ):
        return existing
    raise DataFormatError(
        f"{out}: another finished dataset is here. Choose another --out, or replace it with "
        "--force."
    )
