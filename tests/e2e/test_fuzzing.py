"""The miniature of `make security`: the APIs of a running platform keep to their documents, whatever is asked."""

import pytest

from bench.fuzzing import ASCII
from bench.security import fuzz_platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_every_api_keeps_to_its_document() -> None:
    for stage, fuzzed in fuzz_platform(1, [ASCII]).items():
        assert not fuzzed.failures, f"{stage}: {fuzzed.said}"
        assert fuzzed.cases > 200
