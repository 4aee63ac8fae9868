"""The bench of the driver: all shards are committed, in few requests, in memory that does not grow."""

import pytest

from sentray.bench.driver import bench_driver
from sentray.bench.settings import BenchDriverSettings


@pytest.mark.usefixtures("ray_session")
def test_shards_are_committed_in_few_requests_and_in_memory_that_does_not_grow(console) -> None:
    pytest.importorskip("moto.server")
    figures = bench_driver(BenchDriverSettings(shards=100, remote_shards=50, memory_shards=2000), console)
    assert figures["local_shards_per_s"] > 0
    assert figures["remote_shards_per_s"] > 0
    assert 3 <= figures["requests_per_shard"] <= 4
    assert [row["shards"] for row in figures["memory"]] == [0, 20, 200, 2000]
    assert figures["memory"][-1]["mb"] - figures["memory"][0]["mb"] < 50
    assert any(line.startswith("a loopback S3 server") for line in console.lines)
