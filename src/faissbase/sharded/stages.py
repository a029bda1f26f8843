"""The stages of a build that workers run. Each records its result in the bucket, and may be run again.

A task is a function of a value: both go to another process, which has nothing else of the driver. Whatever
it uploads has a new key; a worker that dies leaves objects that nothing names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faissbase.ann.build import Builder
from faissbase.ann.coarse import sample_rows
from faissbase.ann.flat import threads_a_batch
from faissbase.ann.grammar import parse
from faissbase.ann.spec import Spec
from faissbase.collection.building import Measuring
from faissbase.collection.frozen import FreshCollection, FrozenCollection
from faissbase.collection.store import Config
from faissbase.errors import NotReadyError
from faissbase.sharded.bucket import Bucket, File
from faissbase.sharded.cache import Cache
from faissbase.sharded.codecs import index_of
from faissbase.sharded.duplicates import Hashes, hashes_of, write_hashes
from faissbase.sharded.ledger import Ledger, Place
from faissbase.sharded.making import new_name, uploaded
from faissbase.sharded.manifest import Shard, shard_from
from faissbase.sharded.measuring import answers_of
from faissbase.sharded.sources import Source
from faissbase.storage.files import draft_folder
from faissbase.types import Float32, Metric, Slots

MEASURE_S = 120.0
_BLOCKS = 256  # pieces that a sample is read in
_QUERY_SHARE = 10  # no more than a tenth of the rows are held out
_KILOBYTE = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """How a dataset is built.

    Attributes
    ----------
    metric : Metric
    codec : str
        See `codecs.index_of`.
    shard_ram_bytes : int or None
        What the index of each shard may keep in memory.
    recall : float
        recall@10 to reach over all shards.
    n_queries : int
        Held out to measure it.
    seed : int
    """

    metric: Metric
    codec: str = "auto"
    shard_ram_bytes: int | None = None
    recall: float = 0.95
    n_queries: int = 256
    seed: int = 20

    def index(self, n: int, d: int) -> Spec:
        """The index of a shard with ``n`` rows."""
        memory = self.shard_ram_bytes
        return index_of(self.codec, n, d, self.metric, ram_bytes=memory, recall=self.recall)


@dataclass(frozen=True, slots=True)
class SampleJob:
    """Draw a sample; hold queries out; train what the shards have in common, where ``spec`` needs it.

    ``queries``, ``float32[nq, d]``, were really asked: half of them tell each shard which effort its index
    needs, the other half, as rows that are held out otherwise, what recall comes of it.
    """

    place: Place
    source: Source
    settings: Settings
    spec: Spec
    queries: Float32 | None = None


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Build shard ``number`` of rows ``first`` to ``stop``.

    ``progress`` is a file that tells how far it has come, for who can see this machine's files.
    """

    place: Place
    source: Source
    settings: Settings
    number: int
    first: int
    stop: int
    sample: dict[str, Any]
    progress: Path


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """Ask a shard that was built before for what it finds at another target."""

    place: Place
    settings: Settings
    dimension: int
    shard: dict[str, Any]
    sample: dict[str, Any]


def shard_stage(number: int) -> str:
    return f"shard-{number:05d}"


def recall_stage(shard: str, target: float) -> str:
    return f"recall-{shard}-{target!r}"


# ---- sampling and training -----------------------------------------------------------------------


def sample(job: SampleJob) -> None:
    """Record queries and, where shards share one, a trained index without rows."""
    ledger = job.place.ledger()
    if ledger.read("sample") is not None:
        return
    bucket, name, settings = job.place.bucket(), job.place.name, job.settings
    rng = np.random.default_rng(settings.seed)
    n_rows = max(1, min(settings.n_queries, job.source.n_rows // _QUERY_SHARE)) if job.queries is None else 0
    wanted = n_rows + _train_rows(job.spec, job.source.dimension)
    vectors, ids = _drawn(job, min(wanted, job.source.n_rows), rng)
    held_out = np.sort(rng.choice(len(vectors), min(n_rows, len(vectors)), replace=False))
    asked, given = vectors[held_out], None
    train = _without(vectors, held_out)
    names = [ids[i] for i in held_out.tolist()]
    if job.queries is not None:
        order = rng.permutation(len(job.queries))
        given = job.queries[order[::2][: settings.n_queries]]
        asked = job.queries[order[1::2][: settings.n_queries]]
        names = [""] * len(asked)
    with draft_folder(job.place.folder) as draft:
        facts: dict[str, Any] = {"quantizer": None, "spec": asdict(job.spec), "ids": names}
        facts["queries"] = _stored_queries(asked, ledger, bucket, draft)
        facts["given"] = None if given is None else _stored_queries(given, ledger, bucket, draft)
        trained = _trained(job, train, draft / "quantizer")
        if trained is not None:
            key = f"{name}/quantizers/{new_name()}.faiss"
            facts["quantizer"] = asdict(bucket.upload(trained, "quantizer", key))
    ledger.keep("sample", facts)


def _stored_queries(queries: Float32, ledger: Ledger, bucket: Bucket, draft: Path) -> dict[str, Any]:
    name = new_name()
    np.ascontiguousarray(queries, np.float32).tofile(draft / name)
    return asdict(bucket.upload(draft / name, "queries", f"{ledger.folder}/{name}.f32"))


def _train_rows(spec: Spec, d: int) -> int:
    if not _is_shared(spec):
        return 0
    parsed = parse(spec.factory, d)
    return sample_rows(parsed.good_points, parsed.nlist, d)


def _is_shared(spec: Spec) -> bool:
    """Whether shards of this index are trained once for all."""
    return spec.needs_training and spec.family in ("ivf", "codes")


def _trained(job: SampleJob, vectors: Float32, path: Path) -> Path | None:
    """A file with a trained index of no rows; None where each shard trains its own."""
    if not _is_shared(job.spec):
        return None
    threads = faiss.omp_get_max_threads()
    builder = Builder(job.spec, job.settings.metric, vectors, 0, threads=threads)
    try:
        builder.train(vectors)
    except NotReadyError:
        return None
    builder.write(path)
    return path


def _drawn(job: SampleJob, m: int, rng: np.random.Generator) -> tuple[Float32, list[str]]:
    """About ``m`` rows from all over the source, in as many pieces as are read quickly, and their ids."""
    pieces = _pieces(job.source.n_rows, m, rng) if m else []
    vectors = np.empty((m, job.source.dimension), np.float32)
    ids: list[str] = []
    for rows in job.source.rows(pieces, job.settings.metric, job.place.folder):
        vectors[len(ids) : len(ids) + len(rows)] = rows.vectors
        ids += rows.ids
    return vectors[: len(ids)], ids


def _without(vectors: Float32, rows: Slots) -> Float32:
    """``vectors`` in another order without some rows, in the same memory: a sample may be large."""
    n = len(vectors) - len(rows)
    is_out = np.zeros(len(vectors), np.bool_)
    is_out[rows] = True
    vectors[np.flatnonzero(is_out[:n])] = vectors[n + np.flatnonzero(~is_out[n:])]
    return vectors[:n]


def _pieces(n: int, m: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Ranges of ``m`` of ``n`` rows together: the rows are cut into even parts, one range in each."""
    n_blocks = min(_BLOCKS, m)
    edges = [i * n // n_blocks for i in range(n_blocks + 1)]
    sizes = np.diff([i * m // n_blocks for i in range(n_blocks + 1)]).tolist()
    pieces = []
    for first, stop, size in zip(edges, edges[1:], sizes, strict=False):
        start = first + int(rng.integers(0, max(1, stop - first - size + 1)))
        pieces.append((start, min(start + size, n)))
    return pieces


# ---- shards --------------------------------------------------------------------------------------


def build_shard(job: ShardJob) -> None:
    """Record a shard that is in the bucket, and what it finds for the queries."""
    place, settings = job.place, job.settings
    ledger, bucket = place.ledger(), place.bucket()
    if ledger.read(shard_stage(job.number)) is not None:
        return  # another worker, thought to be dead, has done it
    started_s, cpu_s = time.perf_counter(), time.process_time()
    name, threads = new_name(), faiss.omp_get_max_threads()
    with draft_folder(place.folder) as draft, threads_a_batch(threads):
        folder = draft / name
        folder.mkdir()
        config = Config(name, place.name, job.source.dimension, settings.metric, "auto")
        with closing(FreshCollection(folder, config)) as collection:
            hashes = _filled(collection, job)
            _indexed(collection, job, draft, threads)
            queries = _queries(job.sample["queries"], job.source.dimension, place, draft)
            answers = answers_of(collection, queries, job.sample["ids"], settings.recall)
            stats = collection.stats()
        files = uploaded(bucket, place.name, name, folder)
        kept = _kept_hashes(hashes, place, draft)
    index = "Flat" if stats.index == "exact" else stats.index
    shard = Shard(name, stats.slots, files, index=index, recall=answers["recall_low"])
    ledger.keep(recall_stage(name, settings.recall), answers)
    facts = {
        "seconds": time.perf_counter() - started_s,
        "cpu_s": time.process_time() - cpu_s,
        "peak_bytes": _peak_bytes(),
        "hashes": None if kept is None else asdict(kept),
    }
    ledger.keep(shard_stage(job.number), {"shard": asdict(shard), **facts})


def _peak_bytes() -> int:
    """The most memory that this process has held, mapped files included; 0 where the system does not tell.

    Not getrusage's, which counts what the process was before it became this program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KILOBYTE for line in lines if line.startswith("VmHWM")), 0)


def _filled(collection: FreshCollection, job: ShardJob) -> Hashes | None:
    """Put the rows into a collection; the hashes of those ids that count, None where none can repeat."""
    told = _telling(job)
    hashes: list[Hashes] = []
    n_put = 0
    piece = (job.first, job.stop)
    for rows in job.source.rows([piece], job.settings.metric, job.place.folder):
        collection.put(rows)
        if not job.source.is_distinct:
            hashes.append(hashes_of(rows.ids))
        n_put += len(rows)
        told(n_put // 2)
    if job.source.is_distinct:
        return None
    alive, every = collection.alive(), np.concatenate(hashes)
    return every if alive is None else every[alive]


def _indexed(collection: FreshCollection, job: ShardJob, draft: Path, threads: int) -> None:
    """Build the index that suits the rows there are, from what was trained for all where that fits."""
    n, told = len(collection), _telling(job)
    spec = job.settings.index(n, job.source.dimension)
    trained = None
    if job.sample["quantizer"] is not None and asdict(spec) == job.sample["spec"]:
        trained = draft / "quantizer"
        job.place.bucket().download(File(**job.sample["quantizer"]), trained)
    given = job.sample["given"]
    queries = None if given is None else _queries(given, job.source.dimension, job.place, draft)
    half = (job.stop - job.first) // 2
    collection.finish(
        spec,
        trained,
        threads=threads,
        progress=lambda n_done: told(half + n_done // 2),
        measuring=Measuring(MEASURE_S, queries),
    )
    told(job.stop - job.first)


def _telling(job: ShardJob) -> Callable[[int], None]:
    """Writes how many rows are done: half when they are stored, half when they are in the index."""

    def tell(n_done: int) -> None:
        job.progress.parent.mkdir(parents=True, exist_ok=True)
        job.progress.write_text(str(n_done))

    return tell


def _queries(stored: dict[str, Any], d: int, place: Place, draft: Path) -> Float32:
    path = draft / new_name()
    place.bucket().download(File(**stored), path)
    queries: Float32 = np.fromfile(path, np.float32).reshape(-1, d)
    return queries


def _kept_hashes(hashes: Hashes | None, place: Place, draft: Path) -> File | None:
    if hashes is None:
        return None
    path = draft / "hashes"
    write_hashes(hashes, path)
    return place.bucket().upload(path, "hashes", f"{place.ledger().folder}/{new_name()}.hashes")


def measure(job: MeasureJob) -> None:
    """Record what a shard finds for the queries at the target of these settings."""
    place, target = job.place, job.settings.recall
    shard, ledger = shard_from(dict(job.shard)), place.ledger()
    with draft_folder(place.folder) as draft, threads_a_batch(faiss.omp_get_max_threads()):
        folder = Cache(draft / "shards", place.bucket()).shard(shard)
        config = Config(shard.name, place.name, job.dimension, job.settings.metric, "auto")
        queries = _queries(job.sample["queries"], job.dimension, place, draft)
        with closing(FrozenCollection(folder, config)) as collection:
            answers = answers_of(collection, queries, job.sample["ids"], target)
    ledger.keep(recall_stage(shard.name, target), answers)


def fetched(files: list[File], place: Place, folder: Path) -> list[Path]:
    """Bring files here, some at a time."""
    bucket = place.bucket()
    paths = [folder / f"{i}" for i in range(len(files))]
    with ThreadPoolExecutor(4, thread_name_prefix="faissbase-download") as threads:
        list(threads.map(bucket.download, files, paths))
    return paths
