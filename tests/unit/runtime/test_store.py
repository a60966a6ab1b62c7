"""The store that ranks meet at: a real one, whose starts do not see each other."""

import datetime

import pytest
from torch._C._distributed_c10d import TCPStore

from megatron_msm.runtime.store import connect_to_store, store_of_start

TIMEOUT = datetime.timedelta(seconds=20)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """A store as torchrun's agent keeps it, which outlives the ranks."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    return store


def test_ranks_that_are_started_anew_find_nothing_of_those_before(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    first = store_of_start(TIMEOUT)
    assert first is not None
    first.set("address of rank 1", "gone")
    again = store_of_start(TIMEOUT)
    assert again is not None
    assert again.get("address of rank 1") == b"gone", "the same start is one store"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    second = store_of_start(TIMEOUT)
    assert second is not None
    assert not second.check(["address of rank 1"])


def test_without_torchrun_torch_makes_its_own_store(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert store_of_start(TIMEOUT) is None
    connect_to_store().set("key", "value")
    assert store.get("key") == b"value"
