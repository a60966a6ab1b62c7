"""The version of the code behind a kind of stage: a hash of its packages' sources.

A commit would miss what is not committed yet, and a version number what is. A change in a package
makes the stages that it runs new ones; finished stages of other packages stay finished.
"""

import functools
import importlib.util
from pathlib import Path

from megatron_msm.formats.files import sha256_of_json, sha256_of_text
from slurm.kinds import KINDS, StageKind


def code_version(kind: StageKind) -> str:
    """Return the hash of the sources that a stage of this kind runs."""
    return sha256_of_json([_package_version(package) for package in KINDS[kind].packages])


@functools.cache
def _package_version(package: str) -> str:
    found = importlib.util.find_spec(package)  # by name: the packages do not know each other
    assert found is not None, package
    assert found.origin is not None, package
    folder = Path(found.origin).parent
    sources = sorted(p for p in folder.rglob("*") if p.suffix in {".py", ".j2"})
    return sha256_of_json(
        [[str(p.relative_to(folder)), sha256_of_text(p.read_text())] for p in sources]
    )
