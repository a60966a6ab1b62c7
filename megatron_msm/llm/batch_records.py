"""JOURNAL.batches/: which batches were sent, on disk before and after: none is paid twice.

    JOURNAL.batches/000007.json   written before the batch is made, again with its id, and again
                                  when its results are in the journal

A record without an id is a batch of which a kill, or a lost answer, left unknown whether it exists:
the provider's own list of batches tells.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import write_json_atomic


class BatchRecord(BaseModel):
    """One batch."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    """Kind, address and model of the endpoint: only that one collects it."""
    prepared: str
    """What the provider gave before the batch: the id of the uploaded file, or nothing."""
    unix_time_s: float
    """When it was written first."""
    calls: int
    """Calls that were sent."""
    id: str | None = None
    """The provider's name of the batch; None until its answer came."""
    open_keys: list[str]
    """Keys of calls whose results are not in the journal yet."""


class BatchRecords:
    """The folder beside a journal. Whoever has the journal open is the only one that writes.

    Args:
        journal_path: The journal.

    Raises:
        DataFormatError: A record is damaged.
    """

    def __init__(self, journal_path: Path) -> None:
        self._folder = journal_path.with_name(journal_path.name + ".batches")
        self._records = {
            int(path.stem): _read(path) for path in sorted(self._folder.glob("[0-9]*.json"))
        }

    @property
    def ids(self) -> set[str]:
        """Ids of all batches that were ever sent."""
        return {record.id for record in self._records.values() if record.id is not None}

    def open_ones(self, endpoint: str) -> list[BatchRecord]:
        """Return the records of an endpoint with results to collect."""
        return [
            record
            for record in self._records.values()
            if record.endpoint == endpoint and record.open_keys
        ]

    def add(self, *, endpoint: str, prepared: str, keys: Sequence[str]) -> BatchRecord:
        """Write down that a batch is about to be made."""
        record = BatchRecord(
            endpoint=endpoint,
            prepared=prepared,
            unix_time_s=time.time(),
            calls=len(keys),
            open_keys=list(keys),
        )
        self._folder.mkdir(exist_ok=True)
        self._records[max(self._records, default=0) + 1] = record
        self.save(record)
        return record

    def save(self, record: BatchRecord) -> None:
        """Write a changed record."""
        write_json_atomic(self._path(record), record.model_dump())

    def forget(self, record: BatchRecord) -> None:
        """Remove a record whose batch was never made."""
        path = self._path(record)
        del self._records[int(path.stem)]
        path.unlink()

    def _path(self, record: BatchRecord) -> Path:
        number = next(number for number, held in self._records.items() if held is record)
        return self._folder / f"{number:06d}.json"


def _read(path: Path) -> BatchRecord:
    try:
        return BatchRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise DataFormatError(
            f"{path}: not a record of a batch ({error}). If you delete it, its batch is paid again."
        ) from None
