"""The KubeRay manifest: what it asks of the cluster is what its job asks of faissbase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faissbase.cli import shards_ray
from faissbase.cli.arguments import Parser

yaml = pytest.importorskip("yaml")

DOCUMENTS = list(yaml.safe_load_all((Path(__file__).parents[2] / "deploy" / "kuberay.yaml").read_text()))
SECRET, CLUSTER, JOB = DOCUMENTS
HEAD = CLUSTER["spec"]["headGroupSpec"]
GROUP = CLUSTER["spec"]["workerGroupSpecs"][0]
PODS = {
    "head": HEAD["template"]["spec"],
    "workers": GROUP["template"]["spec"],
    "job": JOB["spec"]["template"]["spec"],
}


def asked() -> Any:
    """The job's command line, as faissbase reads it."""
    args = PODS["job"]["containers"][0]["args"]
    assert args[:2] == ["shards", "deploy"]
    parser = Parser()
    shards_ray.add(parser.add_subparsers(parser_class=Parser))
    return parser.parse_args(args[1:])


def container(pod: str) -> dict[str, Any]:
    [found] = PODS[pod]["containers"]
    return found  # type: ignore[no-any-return]


def environment(pod: str) -> dict[str, Any]:
    return {each["name"]: each for each in container(pod)["env"]}


def gib(text: str) -> int:
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi")) << 30


def test_it_is_a_secret_a_ray_cluster_and_a_job() -> None:
    assert [each["kind"] for each in DOCUMENTS] == ["Secret", "RayCluster", "Job"]
    assert CLUSTER["apiVersion"] == "ray.io/v1"


@pytest.mark.parametrize("pod", PODS)
def test_every_pod_has_the_token_the_cache_and_no_root(pod: str) -> None:
    found = environment(pod)
    assert found["RAY_AUTH_MODE"]["value"] == "token"
    for each in found.values():
        if "valueFrom" in each:
            key = each["valueFrom"]["secretKeyRef"]
            assert (key["name"], key["key"] in SECRET["stringData"]) == (SECRET["metadata"]["name"], True)
    assert found["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "token"
    mounts = {each["mountPath"]: each["name"] for each in container(pod)["volumeMounts"]}
    assert mounts[str(asked().cache)] in {each["name"] for each in PODS[pod]["volumes"]}
    assert PODS[pod]["securityContext"]["runAsNonRoot"]
    assert container(pod)["image"] == "faissbase-ray"


def test_the_workers_fit_where_they_should_run() -> None:
    args = asked()
    assert (args.workers, args.max_workers) == (GROUP["minReplicas"], GROUP["maxReplicas"])
    assert GROUP["replicas"] == args.workers >= args.replicas == 2
    requests = container("workers")["resources"]["requests"]
    assert float(GROUP["rayStartParams"]["num-cpus"]) == float(requests["cpu"]) == args.cpus_per_worker
    assert args.memory_per_worker < 0.8 * gib(requests["memory"]), "Ray keeps a part for itself"
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


def test_replicas_are_spread_over_machines() -> None:
    [spread] = PODS["workers"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"].items() <= GROUP["template"]["metadata"]["labels"].items()


def test_the_job_finds_the_head_and_leaves_the_workers_running() -> None:
    ports = {each["name"]: each["containerPort"] for each in container("head")["ports"]}
    service = f"{CLUSTER['metadata']['name']}-head-svc"  # as KubeRay calls it
    args = asked()
    assert args.address == f"ray://{service}:{ports['client']}"
    assert args.detach
    assert args.url == "$(SHARDS_URL)"
    assert "SHARDS_URL" in environment("job")
