"""Packings in a folder that the other ranks of this node read. No torch: the launcher needs it."""

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from megatron_msm.data.packing.packings import Packings

PACKINGS_FOLDER = "MSM_PACKINGS"
"""Set by the local launcher: the folder with the run's packings."""
_PREFIX = "_packings-"
"""No phase can have such a name."""


@contextlib.contextmanager
def shared_packings(out: Path, packings: Packings) -> Iterator[Path]:
    """Write packings for other processes of this node, and remove them afterwards.

    They lie in the run folder, because it is what all ranks are known to see: /tmp may be another
    one for each task of a job.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{socket.gethostname()}-", dir=out))
    try:
        packings.write(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
