from tests.contract.conftest import _one_thread  # noqa: F401
