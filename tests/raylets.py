"""Holds a Ray cluster of three raylets on this machine, as a process of its own; the fixture `raylets` runs it.

Prints a line of JSON with the cluster's address and the raylets' processes, the head's first; adds a raylet for each
line of its standard input and prints its process; ends with its standard input.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

COUNT, STORE_BYTES = 3, 100 * 2**20


def add(cluster: Cluster) -> Any:
    return cluster.add_node(
        num_cpus=1, object_store_memory=STORE_BYTES, node_ip_address="127.0.0.1", include_dashboard=False, wait=False
    )


def process(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def main() -> None:
    cluster = Cluster()
    nodes = [add(cluster) for _ in range(COUNT)]
    cluster.wait_for_nodes()
    print(json.dumps({"address": cluster.address, "processes": [process(node) for node in nodes]}), flush=True)
    for _ in sys.stdin:
        print(process(add(cluster)), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
