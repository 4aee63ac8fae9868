"""The bench of the driver: all shards are committed, in few requests, in memory that does not grow."""

import pytest

from sentray.bench.driver import bench_driver
from sentray.bench.settings import BenchDriverSettings


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_shards_are_committed_in_few_requests_and_in_memory_that_does_not_grow(console) -> None:
    pytest.importorskip("moto.server")
    figures = bench_driver(BenchDriverSettings(shards=100, remote_shards=50, memory_shards=2000), console)
    assert figures["local disk"]["committed by one driver"]["shards_per_s"] > 0
    bare, driver = figures["loopback S3 server"].values()
    assert bare["requests_per_shard"] == 2
    assert 2 <= driver["requests_per_shard"] <= 4
    assert driver["ratio"] == driver["shards_per_s"] / bare["shards_per_s"] > 0
    memory = figures["memory of a plan"]
    assert list(memory) == [f"{shards:,} committed" for shards in (0, 20, 200, 2000)]
    assert memory["2,000 committed"]["mb"] - memory["0 committed"]["mb"] < 50
    assert any(line.startswith("loopback S3 server") for line in console.lines)
