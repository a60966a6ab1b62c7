"""Interfaces by NCCL's words, on this machine's own."""

import socket

import pytest

from megatron_msm.errors import ConfigError
from slurm.jobs.rendezvous import first_interface, rank_environment

HERE = [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize("wanted", ["lo", "=lo", "l", "^docker,veth,none", "none,lo"])
def test_patterns_become_one_name_for_gloo(wanted: str) -> None:
    found = first_interface(wanted, HERE)
    assert found in HERE
    if not wanted.startswith("^"):
        assert found == "lo"


@pytest.mark.parametrize("wanted", ["ib7", "=l", "^lo"])
def test_absent_interface_is_refused_by_name(wanted: str) -> None:
    with pytest.raises(ConfigError) as error:
        first_interface(wanted, ["lo"])
    assert repr(wanted) in str(error.value)
    assert "has lo" in str(error.value)


def test_a_sites_own_address_port_and_suffix_are_kept() -> None:
    def environment(**given: str) -> dict[str, str]:
        return rank_environment(
            rank=1,
            local_rank=1,
            num_tasks=4,
            num_nodes=2,
            hosts=["n1", "n2"],
            job_id=3,
            environment=given,
        )

    assert environment(MASTER_ADDR="a", MASTER_PORT="5")["MASTER_ADDR"] == "a"
    assert environment(MASTER_PORT="5", MSM_HOST_SUFFIX="i")["MASTER_PORT"] == "5"
    assert environment(MSM_HOST_SUFFIX="i")["MASTER_ADDR"] == "n1i"
    first = environment(MSM_HOST_SUFFIX="i")["MASTER_PORT"]
    assert first != environment(MSM_HOST_SUFFIX="i", SLURM_RESTART_COUNT="1")["MASTER_PORT"]
