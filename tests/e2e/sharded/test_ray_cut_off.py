"""A node whose network goes away, and comes back: a network namespace of this machine is that node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.sharded.ray_tier import STORE_BYTES, Load, Tier, filled, searching, until_strong

import faissbase
from faissbase.sharded import runner

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

HERE, THERE = "10.213.77.1", "10.213.77.2"
# Ray's own would take a minute to give up a node that is silent.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Cable:
    """A network namespace, and the pair of devices that joins it to this machine."""

    name: str

    def connect(self) -> None:
        run(f"ip netns add {self.name}")
        run(f"ip link add {self.name}a type veth peer name {self.name}b netns {self.name}")
        run(f"ip addr add {HERE}/24 dev {self.name}a")
        run(f"ip link set {self.name}a up")
        self.inside(f"ip addr add {THERE}/24 dev {self.name}b")
        self.inside(f"ip link set {self.name}b up")
        self.inside("ip link set lo up")

    def inside(self, command: str) -> None:
        run(f"ip netns exec {self.name} {command}")

    def pull(self) -> None:
        run(f"ip link set {self.name}a down")

    def plug_in(self) -> None:
        run(f"ip link set {self.name}a up")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, timeout=10)


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace takes root and the command ip")
    cable = Cable(f"fb{os.getpid() % 10**6}")
    try:
        cable.connect()
    except subprocess.CalledProcessError as error:
        cable.remove()
        pytest.skip(f"no network namespace is to be had: {error.stderr.decode().strip()}")
    yield cable
    cable.remove()


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory, cable: Cable) -> Iterator[Tier]:
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("ray")
    url = (folder / "bucket").as_uri()
    local = filled(url, folder / "local")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HEALTH.items():
            patch.setenv(name, value)
        usual = {"object_store_memory": STORE_BYTES, "node_ip_address": HERE}
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, **usual}
        nodes: Any = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=4, **usual)
        far_node = started(cable, nodes.address, folder)
        ray.init(address=nodes.address, log_to_driver=False, _node_ip_address=HERE)
        until = time.monotonic() + 30
        while len([node for node in ray.nodes() if node["Alive"]]) < 3:
            assert time.monotonic() < until, (folder / "node.log").read_text()
            time.sleep(0.1)
        cluster = runner.deploy(url, workers=4, replicas=2, cache=folder / "cache", wait_s=120)
        far = faissbase.connect("ray://auto", cache=folder / "far", refresh_s=0)
        yield Tier(nodes, far_node, cluster, local, far, folder)  # type: ignore[arg-type]
        far.close()
        local.close()
        cluster.stop()
        ray.shutdown()
        nodes.shutdown()
        far_node.terminate()
        far_node.wait(20)


def started(cable: Cable, address: str, folder: Path) -> subprocess.Popen[bytes]:
    """A node of the cluster, in the namespace."""
    ray_command = str(Path(sys.executable).with_name("ray"))
    command = ["ip", "netns", "exec", cable.name, ray_command, "start", f"--address={address}"]
    command += [f"--node-ip-address={THERE}", "--num-cpus=4", "--block"]
    command += [f"--object-store-memory={STORE_BYTES}"]
    with (folder / "node.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def test_no_query_is_lost_when_a_node_is_cut_off_or_comes_back(tier: Tier, cable: Cable) -> None:
    assert len(set(tier.cluster.status().workers.values())) == 2, "the workers are on both nodes"
    with Load(searching(tier)) as load:
        cable.pull()
        told = until_strong(tier, lambda: len(set(tier.cluster.status().workers.values())) == 1)
        load.wait_for(20)
        cable.plug_in()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            assert tier.cluster.status().is_at_full_strength
            time.sleep(0.5)
        load.wait_for(20)
        print(f"\nnode cut off: {told}, {load.n_asked} queries")
    assert load.wrong == []
