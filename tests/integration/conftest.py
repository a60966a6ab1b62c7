"""One SLURM for all tests that need one."""

from collections.abc import Iterator

import pytest

from tests.integration.slurm_cluster import SlurmCluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Three nodes of a real SLURM, or a skip with the reason."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        cluster = SlurmCluster(tmp_path_factory.mktemp("cluster"))
        try:
            cluster.up()
            patch.setenv("SLURM_CONF", str(cluster.conf))
            yield cluster
        finally:
            cluster.down()
