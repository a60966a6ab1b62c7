"""What a preparation hands back to the command line."""

from typing import Any, NamedTuple

from megatron_msm.formats.manifest import DatasetManifest


class Prepared(NamedTuple):
    """A finished dataset."""

    manifest: DatasetManifest
    already_made: bool
    """The dataset was there before, made from the same inputs with the same settings."""

    def as_json(self, prefix: str) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "prefix": prefix,
            "already_made": self.already_made,
            "kind": self.manifest.kind,
            "sha256": self.manifest.sha256,
            **self.manifest.counts.model_dump(),
        }
