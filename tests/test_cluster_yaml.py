"""The configurations for `ray up`, on AWS and as its comments say for Google Cloud, are ones that Ray accepts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).resolve().parents[1] / "cluster.yaml"


@pytest.fixture(params=["aws", "gcp"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    text = FILE.read_text()
    parsed = yaml.safe_load(text)
    if request.param == "gcp":
        # The sections that stand commented out behind the last uncommented one, after their introduction.
        commented = text[re.search(r"^# Google Cloud:(.*\n)+?#\n", text, re.MULTILINE).end() :]  # type: ignore[union-attr]
        parsed |= yaml.safe_load(re.sub("^# ?", "", commented, flags=re.MULTILINE))
    assert parsed["provider"]["type"] == request.param
    return parsed


def test_passes_rays_own_validator(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["cpu_worker"]["max_workers"] == 12


def test_head_does_no_work_and_workers_start_from_zero(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert [kinds[kind]["min_workers"] for kind in ("cpu_worker", "gpu_worker")] == [0, 0]
    if config["provider"]["type"] == "aws":
        assert kinds["cpu_worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    else:
        assert kinds["cpu_worker"]["node_config"]["scheduling"] == [{"preemptible": True}]


def test_every_node_asks_for_the_token_and_the_dashboard_is_not_exposed(config: dict[str, Any]) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_image_has_the_ray_that_the_project_asks_for(config: dict[str, Any]) -> None:
    import ray

    major_minor = ".".join(ray.__version__.split(".")[:2])
    images = [
        config["docker"]["image"],
        config["available_node_types"]["gpu_worker"]["docker"]["worker_image"],
    ]
    assert all(image.startswith(f"rayproject/ray:{major_minor}.") for image in images)
