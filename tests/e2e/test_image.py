"""The steps of the Dockerfiles, done by hand in a clean folder: it installs, starts and is healthy."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER, RAY = "Dockerfile", "deploy/ray.Dockerfile"


def _lines(image: str) -> list[str]:
    return (ROOT / image).read_text().replace("\\\n", " ").splitlines()


def _of(instruction: str, image: str = SERVER) -> list[str]:
    return [line.partition(" ")[2] for line in _lines(image) if line.startswith(f"{instruction} ")]


@pytest.mark.parametrize("image", [SERVER, RAY])
def test_all_that_the_image_needs_is_copied_and_let_through(image: str) -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in _of("COPY", image) if "--from" not in line for word in line.split()[:-1]]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "src"]
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_it_runs_as_nobody_special_on_one_volume_and_needs_keys() -> None:
    assert _of("USER") == ["10001"]
    assert _of("VOLUME") == ["/data"]
    environment = dict(line.split("=", 1) for line in _of("ENV"))
    assert environment["FAISSBASE_DATA"] == "/data"
    assert "FAISSBASE_INSECURE" not in environment


def test_the_image_of_ray_is_the_one_that_the_manifest_runs() -> None:
    manifest = (ROOT / "deploy" / "kuberay.yaml").read_text()
    images = set(re.findall(r"image: (\S+)", manifest))
    assert images == {"faissbase-ray"}
    assert _lines(RAY)[1] == f"# docker build -f {RAY} -t {images.pop()} ."
    assert set(re.findall(r"runAsUser: (\d+)", manifest)) == set(_of("USER", RAY)) == {"10001"}
    assert _of("VOLUME", RAY) == [re.findall(r"--cache=(\S+)", manifest)[0]]
    assert not _of("ENTRYPOINT", RAY)
    assert not _of("CMD", RAY)


def test_the_image_of_ray_has_what_kuberay_asks_of_it() -> None:
    steps = " ".join(_of("RUN", RAY))
    extras = (ROOT / "pyproject.toml").read_text()
    for name in re.findall(r"[a-z]+", re.findall(r'"\.\[([a-z,]+)\]"', steps)[0]):
        assert re.search(rf"^{name} = \[", extras, re.MULTILINE)
    assert '"ray[default,client]"' in steps
    assert "wget" in steps


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the images copy, installed without what it depends on."""
    folder = tmp_path_factory.mktemp("image")
    source, installed = folder / "src", folder / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(installed),
        ".",
    ]
    subprocess.run(install, cwd=source, check=True)
    console = Path("faissbase", "server", "console")
    assert _names(installed / console) == _names(ROOT / "src" / console)
    return installed


@pytest.mark.slow
def test_what_is_copied_installs_starts_and_is_healthy(tmp_path: Path, installed: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    environment = _environment(SERVER, installed)
    environment |= {"FAISSBASE_DATA": str(data), "FAISSBASE_PORT": "0"}
    command = [sys.executable, "-m", "faissbase"]
    refused = subprocess.run([*command, "serve"], env=environment, capture_output=True, text=True, cwd="/")
    assert refused.returncode == 4
    assert "no API key yet" in refused.stderr
    make = [*command, "keys", "create", "--tenant", "acme", "--scopes", "write", "--json"]
    made = subprocess.run(make, env=environment, capture_output=True, text=True, check=True, cwd="/")
    assert json.loads(made.stdout)["key"].startswith("fb_")
    with subprocess.Popen(
        [*command, "serve"], env=environment, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as server:
        assert server.stderr is not None
        found = re.search(r":(\d+) ", server.stderr.readline())
        assert found is not None
        try:
            check = json.loads(_of("HEALTHCHECK")[0].partition("CMD ")[2])
            environment["FAISSBASE_PORT"] = found[1]
            assert _passes([sys.executable, *check[1:]], environment)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0


def _environment(image: str, installed: Path) -> dict[str, str]:
    """That of the image, with ``installed`` to import from; FAISS's threads do not spin while they wait."""
    found = dict(line.split("=", 1) for line in _of("ENV", image) if not line.startswith("PATH"))
    kept = {name: os.environ[name] for name in ("PATH", "OMP_WAIT_POLICY") if name in os.environ}
    return found | kept | {"PYTHONPATH": str(installed)}


def _names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def _passes(check: list[str], environment: dict[str, str]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if subprocess.run(check, capture_output=True, env=environment, cwd="/").returncode == 0:
            return True
    return False


@pytest.mark.slow
def test_what_the_image_of_ray_installs_joins_a_cluster_and_serves(tmp_path: Path, installed: Path) -> None:
    pytest.importorskip("ray")
    environment = _environment(RAY, installed) | {"HOME": str(tmp_path)}
    url, cache = (tmp_path / "bucket").as_uri(), tmp_path / "cache"
    script = (
        "import faissbase\n"
        f"with faissbase.connect({url!r}, cache={str(cache)!r}) as db:\n"
        "    db.create_collection('docs', 2, 'l2').upsert(['a', 'b'], [[0, 0], [1, 1]])\n"
    )
    run = {"env": environment, "cwd": "/", "text": True, "capture_output": True, "timeout": 120}
    subprocess.run([sys.executable, "-c", script], check=True, **run)  # type: ignore[call-overload]
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}
    with _ray_head(environment) as address:
        deploy = ["shards", "deploy", url, f"--address={address}", "--workers=1", "--replicas=1", "--detach"]
        command = [sys.executable, "-m", "faissbase", *deploy, f"--cache={cache}"]
        deployed = subprocess.run(command, **run)  # type: ignore[call-overload]
        assert deployed.returncode == 0, deployed.stderr
        search = (
            "import faissbase, ray\n"
            "from pathlib import Path\n"
            "from faissbase.sharded import runner, joining\n"
            f"joining.join({address!r})\n"
            "cluster = runner.RayCluster('faissbase')\n"
            f"with cluster.connect(Path({str(tmp_path / 'far')!r})) as db:\n"
            "    print(db.get_collection('docs').search([1, 1], k=1)[0].id)\n"
            "cluster.stop()\n"
        )
        found = subprocess.run([sys.executable, "-c", search], **run)  # type: ignore[call-overload]
        assert found.stdout.split()[-1:] == ["b"], found.stderr


@contextmanager
def _ray_head(environment: dict[str, str]) -> Iterator[str]:
    """A head with room for two, as ``ray start`` makes it, ended with all that it has started."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    start = ["start", "--head", "--block", "--port=0", "--num-cpus=2", "--include-dashboard=false"]
    start += [f"--ray-client-server-port={_free_port()}", "--object-store-memory=100000000"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *start, f"--temp-dir={folder}"]
    head = subprocess.Popen(
        command, env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert head.stdout is not None
        found = next(
            (hit for line in head.stdout if (hit := re.search(r"--address='([\d.:]+)'", line))), None
        )
        assert found is not None
        yield found[1]
    finally:
        head.terminate()
        head.communicate(timeout=90)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port
