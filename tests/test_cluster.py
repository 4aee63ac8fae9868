"""Plans are refused before they start, and a process finds or starts its cluster."""

import os
import subprocess
import sys
from typing import Any

import pytest

from sentray import cluster
from sentray.cluster import Resources, plan
from sentray.errors import SentrayError


def _nodes(*nodes: tuple[float, float], maximum: tuple[float, float] | None = None) -> Resources:
    cpus, gpus = sum(node[0] for node in nodes), sum(node[1] for node in nodes)
    return Resources(cpus, gpus, cpus, gpus, *(maximum or (cpus, gpus)), nodes)


def test_a_plan_that_fits_says_what_is_left() -> None:
    two = plan(2, 0.5, on=_nodes((2, 0)))
    assert two.cpus_left == 1
    assert two.describe() == "2 workers, 0.5 CPUs each; 1 CPU left"
    assert plan(1, 1, 1, on=_nodes((4, 1))).describe() == ("1 worker, 1 CPU each, 1 GPU each; 3 CPUs left")


@pytest.mark.parametrize(
    ("wish", "have", "sentence"),
    [
        ((4, 1, 1), _nodes((8, 0)), "wants 4 workers with 1 CPU and 1 GPU each; the cluster has 8 CPUs and 0 GPUs on "),
        ((3, 1, 0), _nodes((2, 0)), "wants 3 workers with 1 CPU each; the cluster has 2 CPUs on 1 node, which cannot"),
        ((2, 2, 0), _nodes((3, 0), (1, 0)), "the cluster has 4 CPUs on 2 nodes, which cannot hold them: take fewer"),
        ((2, 1, 1), _nodes((1, 2), (8, 0)), "cannot hold them: take fewer --workers, leave out --gpu or reach"),
    ],
)
def test_a_plan_that_never_fits_is_refused(wish: tuple[int, float, float], have: Resources, sentence: str) -> None:
    with pytest.raises(SentrayError, match=sentence):
        plan(*wish, on=have)


def test_thirds_of_a_cpu_add_up() -> None:
    assert plan(3, 1 / 3, on=_nodes((1, 0))).workers == 3


def test_a_cluster_that_grows_may_hold_what_is_not_there_yet() -> None:
    starting = _nodes((0, 0), maximum=(192, 4))
    assert plan(4, 1, 1, on=starting).cpus_left == 188
    with pytest.raises(SentrayError, match="192 CPUs and 4 GPUs"):
        plan(5, 1, 1, on=starting)


def test_the_local_cluster_has_what_was_asked_for(ray_session: None) -> None:
    import ray

    found = cluster.resources()
    assert (found.cpus, found.gpus, found.nodes) == (2, 0, ((2, 0),))
    assert not found.grows
    assert ray.util.get_node_ip_address() == "127.0.0.1"


@pytest.mark.parametrize("client", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a guess"}])
def test_the_local_cluster_refuses_who_lacks_its_token(ray_session: None, client: dict[str, str]) -> None:
    import ray
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    assert is_token_auth_enabled()
    program = "import ray, sys; print(len(ray._raylet.GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)))"
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}

    def ask(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, ray.get_runtime_context().gcs_address]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    refused = ask({**others, "RAY_AUTH_MODE": "disabled", **client})
    assert refused.returncode == 1
    assert "Authentication token is missing or incorrect" in refused.stderr
    assert ask({**others, "RAY_AUTH_MODE": "token"}).stdout.strip() == "1"


def test_a_connected_process_stays_connected(ray_session: None) -> None:
    import ray

    with cluster.connect(address="127.0.0.1:1"):
        pass
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("http://127.0.0.1:8265", "'http://127.0.0.1:8265' is not the address of a Ray head"),
        ("myhost", "'myhost' is not the address of a Ray head"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, sentence: str) -> None:
    program = "from sentray import cluster\nwith cluster.connect(): pass"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sentence in done.stderr.splitlines()[-1]


def test_a_mistake_found_in_another_process_is_the_users_sentence(ray_session: None) -> None:
    import ray

    @ray.remote
    def work() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise SentrayError("the file a.csv is damaged; repair it") from error

    with pytest.raises(SentrayError) as caught:
        ray.get(work.remote())
    assert "Traceback" in str(caught.value) or "ray::" in str(caught.value)
    assert str(cluster.user_error(caught.value)) == "the file a.csv is damaged; repair it"


def test_a_mistake_behind_ray_data_and_ray_train_is_found(ray_session: None) -> None:
    import ray.data
    from ray.train.v2.api.exceptions import WorkerGroupError

    def work(batch: Any) -> Any:
        raise SentrayError("the file b.csv is damaged; repair it")

    with pytest.raises(Exception, match=r"b\.csv") as caught:
        ray.data.range(2).map_batches(work).materialize()
    assert str(cluster.user_error(caught.value)) == "the file b.csv is damaged; repair it"
    group = WorkerGroupError("a worker failed", {0: caught.value})
    assert str(cluster.user_error(group)) == "the file b.csv is damaged; repair it"
    assert cluster.user_error(ValueError("no mistake of the user")) is None
