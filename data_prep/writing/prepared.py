"""What a preparation hands back to the command line."""

from pathlib import Path
from typing import NamedTuple

from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.manifest import DatasetManifest


class Prepared(NamedTuple):
    """A finished dataset."""

    prefix: Path
    manifest: DatasetManifest
    already_made: bool
    """The dataset was there before, made from the same inputs with the same settings."""

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {
            "prefix": str(self.prefix),
            "already_made": self.already_made,
            "kind": self.manifest.kind,
            "sha256": self.manifest.sha256,
            "backend": self.manifest.backend,
            **self.manifest.counts.as_json(),
        }
