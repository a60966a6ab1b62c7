"""The inputs of merged datasets, and the proof that shards are all the parts of the same files."""

from pathlib import Path

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.manifest import DatasetManifest, InputEntry, ShardEntry


def all_inputs(prefixes: list[Path], manifests: list[DatasetManifest]) -> list[InputEntry]:
    """Return the inputs of all datasets, the parts of a file joined.

    Args:
        prefixes: The datasets, shards in the order of their numbers.
        manifests: Their manifests.

    Raises:
        DataFormatError: An input would be there twice, or a part of it not at all.
    """
    shards = [manifest.shard for manifest in manifests]
    if any(shard is not None for shard in shards):
        _check_shards(prefixes, shards)
    owner: dict[str, Path] = {}
    joined: list[InputEntry] = []
    for prefix, manifest in zip(prefixes, manifests, strict=True):
        for entry in manifest.inputs:
            before = joined[-1] if joined and joined[-1].part is not None else None
            if before is not None and before.path == entry.path:
                joined[-1] = _joined(before, entry, owner[entry.path], prefix)
            elif entry.path in owner:
                raise DataFormatError(
                    f"{prefix}: its input {entry.path} is also in {owner[entry.path]}, so its rows "
                    "would be there twice. Merge datasets of different inputs."
                )
            else:
                joined.append(entry)
            owner[entry.path] = prefix
    return [_whole(entry) for entry in joined]


def _check_shards(prefixes: list[Path], shards: list[ShardEntry | None]) -> None:
    first = next(shard for shard in shards if shard is not None)
    for prefix, shard in zip(prefixes, shards, strict=True):
        if shard is None or (shard.count, shard.inputs_sha256) != (
            first.count,
            first.inputs_sha256,
        ):
            what = "is no shard" if shard is None else "is a shard of another list of inputs"
            raise DataFormatError(
                f"{prefix}: {what}, and the others are shards of one list of inputs cut into "
                f"{first.count}. Merge all shards of one preparation, and nothing else."
            )
    found = [shard.index for shard in shards if shard is not None]
    missing = [str(index) for index in range(first.count) if index not in found]
    if missing:
        raise DataFormatError(
            f"{prefixes[0]}: of the {first.count} shards these are missing or unfinished: "
            f"{', '.join(missing[:20])}{', ...' if len(missing) > 20 else ''}. Run them again with "
            "--shard."
        )
    if len(found) != len(set(found)):
        raise DataFormatError(
            f"{prefixes[0]}: a shard is given twice (numbers {', '.join(map(str, found))}). Give "
            "each once."
        )


def _joined(before: InputEntry, after: InputEntry, owner: Path, prefix: Path) -> InputEntry:
    assert before.part is not None, "the caller looked"
    part = after.part
    if (
        part is None
        or part.start != before.part.stop
        or part.before_sha256 != before.sha256
        or after.bytes != before.bytes
    ):
        raise DataFormatError(
            f"{prefix}: {after.path} is not the file that {owner} was made from; it changed in "
            "between. Prepare all shards again."
        )
    whole = before.part.model_copy(update={"stop": part.stop})
    return after.model_copy(update={"part": whole})


def _whole(entry: InputEntry) -> InputEntry:
    if entry.part is None:
        return entry
    assert (entry.part.start, entry.part.stop) == (0, entry.bytes), (
        f"{entry.path}: parts {entry.part} of {entry.bytes} bytes"
    )
    return entry.model_copy(update={"part": None})
