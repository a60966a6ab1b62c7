"""Parts of a phase's data whose losses are shown apart: datasets, or provenance values."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_msm.data.packed_dataset import PackedDataset
from megatron_msm.data.packing.index import aligned
from megatron_msm.errors import ConfigError
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_text_column

BY_SOURCE = "source"
MAX_VALUES = 64


class LossGroups:
    """Says which groups each position of a packed sequence belongs to.

    Args:
        dataset: The phase's packed sequences.
        fields: Ways to divide the data: `source`, or fields of the provenance.

    Raises:
        ConfigError: A field has too many values to show.
        DataFormatError: A dataset does not have the field.
    """

    def __init__(self, dataset: PackedDataset, fields: Sequence[str]) -> None:
        self._dataset = dataset
        self._of_row: list[list[npt.NDArray[np.int64]]] = []
        names: dict[str, int] = {}
        for field in fields:
            before = len(names)
            if field == BY_SOURCE:
                ids = [self._constant(source, names) for source in range(len(dataset.sources))]
            else:
                ids = [self._column(source, field, names) for source in range(len(dataset.sources))]
            if len(names) - before > MAX_VALUES:
                raise ConfigError(
                    f"logging.loss_by: {field!r} has {len(names) - before} values, more than the "
                    f"{MAX_VALUES} that can be shown. Choose a field with fewer."
                )
            self._of_row.append(ids)
        self.names = tuple(names)
        """The groups, as `source/docs` or `domain/cheese`, in the order of their ids."""

    def of_pack(self, index: int | None) -> npt.NDArray[np.int64]:
        """Return the group ids [F, S] of a packed sequence; padding is in some group, unmasked."""
        found = np.zeros((len(self._of_row), self._dataset.seq_length), np.int64)
        if index is None:
            return found
        pieces = self._dataset.rows(index)
        lengths = np.array([piece.length for piece in pieces], np.int64)
        sizes = aligned(lengths, self._dataset.sources[pieces[0].source].packing_index.align)
        for dimension, ids in enumerate(self._of_row):
            values = [ids[piece.source][piece.row] for piece in pieces]
            found[dimension, : int(sizes.sum())] = np.repeat(values, sizes)
        return found

    def _constant(self, source: int, names: dict[str, int]) -> npt.NDArray[np.int64]:
        opened = self._dataset.sources[source]
        short = [other.prefix.name for other in self._dataset.sources]
        name = opened.prefix.name
        shown = name if short.count(name) == 1 else str(opened.prefix).replace("/", ".")
        return np.full(len(opened.lengths), names.setdefault(f"{BY_SOURCE}/{shown}", len(names)))

    def _column(self, source: int, field: str, names: dict[str, int]) -> npt.NDArray[np.int64]:
        path = dataset_file(self._dataset.sources[source].prefix, PROVENANCE_SUFFIX)
        column = read_text_column(path, field)
        values = [f"{field}/{value}" for value in column.dictionary.to_pylist()]
        known = np.array([names.setdefault(value, len(names)) for value in values], np.int64)
        if column.indices.null_count:
            known = np.append(known, names.setdefault(f"{field}/none", len(names)))
        codes: npt.NDArray[np.int64] = column.indices.fill_null(len(values)).to_numpy()
        ids: npt.NDArray[np.int64] = known[codes]
        return ids
