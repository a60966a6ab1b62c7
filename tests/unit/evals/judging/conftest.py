from tests.unit.llm.conftest import fault_server

__all__ = ["fault_server"]
