"""From a source to a published dataset: plan, sample, train, build the shards, measure recall, publish.

The driver holds nothing that cannot be found again: every stage's result is in the bucket, and a run that
was killed is gone on with by the next.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from xxhash import xxh3_128_hexdigest

from faissbase.collection import inputs
from faissbase.collection.folder import check_name
from faissbase.collection.store import NOTHING
from faissbase.errors import AlreadyExistsError, ConflictError, InvalidInputError, UnavailableError
from faissbase.sharded import stages
from faissbase.sharded.bucket import Bucket, File, check_creates_once
from faissbase.sharded.codecs import check_codec, finer_codecs
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.duplicates import Listed, replaced
from faissbase.sharded.executors import Executor
from faissbase.sharded.ledger import Ledger, Place, are_there
from faissbase.sharded.making import with_hidden
from faissbase.sharded.manifest import Manifest, Shard, shard_from
from faissbase.sharded.measuring import Merging, Recall
from faissbase.sharded.sources import Source
from faissbase.sharded.stages import MeasureJob, SampleJob, Settings, ShardJob, recall_stage, shard_stage
from faissbase.storage.files import draft_folder, os_errors
from faissbase.types import METRICS, Float32, Slots

QUERIES_LEAST = 100
SHARD_ROWS = 10_000_000
SHARD_BYTES = 8 << 30
"""A shard has so many rows, or so many bytes of vectors, where nothing is said."""

_FORMAT = 2
_POLL_S = 0.25

Progress = Callable[[str, int, int], None]
"""Told the stage, and how many of how many rows are done."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What `build` has made.

    Attributes
    ----------
    name, url, version
    n_rows : int
        Records of the dataset.
    n_replaced : int
        Rows whose ids came again later in the source.
    shards : int
    n_resumed : int
        Shards that an earlier run had built.
    index : str
        Of the shards; several kinds are joined by a semicolon.
    recall : Recall
        Over all shards; see `Recall`.
    target : float
    size_bytes : int
    shard_seconds, shard_cpu_s : list of float
        What each shard took.
    peak_bytes : int
        The most memory that a worker has held, mapped files included.
    seconds : float
        Of this run.
    """

    name: str
    url: str
    version: int
    n_rows: int
    n_replaced: int
    shards: int
    n_resumed: int
    index: str
    recall: Recall
    target: float
    size_bytes: int
    shard_seconds: list[float]
    shard_cpu_s: list[float]
    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class Request:
    """A dataset to build.

    Attributes
    ----------
    name : str
    settings : Settings
        Its ``shard_ram_bytes`` follow from ``ram_bytes``.
    ram_bytes : int or None
        What all indexes together may keep in memory.
    rows_per_shard : int or None
        At most; shards are as many as that takes, of equal sizes.
    is_replacing : bool
        Whether the shards of a dataset that is there may be replaced.
    queries : float32[nq, d] or None
        Questions that were really asked: effort and recall are measured with them, instead of with rows that
        are held out. `QUERIES_LEAST` or more.
    options : dict
        What workers need to open the bucket, beside its URL; see `open_bucket`.
    """

    name: str
    settings: Settings
    ram_bytes: int | None = None
    rows_per_shard: int | None = None
    is_replacing: bool = False
    queries: Float32 | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self, source: Source) -> str:
        """Of everything that shards depend on. The target is none of it: it is measured anew."""
        settings = self.settings
        facts = [_FORMAT, source.fingerprint(), settings.metric, settings.codec, self.ram_bytes]
        facts += [self.rows_per_shard, settings.n_queries, settings.seed, settings.recall == 1.0]
        if self.queries is not None:
            facts.append(xxh3_128_hexdigest(np.asarray(self.queries, np.float32).tobytes()))
        return xxh3_128_hexdigest(orjson.dumps(facts))


def build(
    request: Request,
    source: Source,
    bucket: Bucket,
    work: Path,
    executor: Executor,
    *,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a dataset and publish it.

    Parameters
    ----------
    request : Request
    source : Source
    bucket : Bucket
    work : Path
        A folder on a disk with room for a shard of every worker.
    executor : Executor
    progress : callable, optional

    Raises
    ------
    AlreadyExistsError
        There is such a dataset with records in it; nothing was done.
    InvalidInputError
        Something about the request or a row is wrong; or the shards do not reach the target: says what would.
        Nothing is published, and what was built is there for the next run.
    """
    started_s = time.perf_counter()
    _check(request)
    dataset = Dataset(bucket, request.name)
    place = Place(bucket.url, request.name, request.fingerprint(source), work, request.options)
    run = _Run(request, place, bucket, executor, progress or (lambda stage, done, total: None))
    run.check_free(dataset.latest())
    check_creates_once(bucket)
    with os_errors(f"cannot create {work}"):
        work.mkdir(parents=True, exist_ok=True)
    made = run.made(source)
    manifest = run.published(dataset, made)
    run.clean_up()
    return _report(request, manifest, made, time.perf_counter() - started_s)


def _check(request: Request) -> None:
    settings = request.settings
    check_name(request.name)
    if settings.metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, got {settings.metric!r}")
    inputs.check_fraction(settings.recall, "recall")
    check_codec(settings.codec, settings.metric, None)
    for value, name in ((request.rows_per_shard, "rows_per_shard"), (request.ram_bytes, "ram_bytes")):
        if value is not None:
            inputs.check_count(value, name)


def _check_free(there: Manifest | None, request: Request, dimension: int | None = None) -> None:
    """Refuse to build over records that nobody has said may go, or a dataset of another kind."""
    if there is None or there.is_deleted:
        return
    if there.shards and not request.is_replacing:
        raise AlreadyExistsError(
            f"dataset {request.name!r} exists already, with {there.n_alive:,} records: take another name, "
            "or replace it (--replace)"
        )
    wanted = (dimension or there.dimension, request.settings.metric)
    if (there.dimension, there.metric) != wanted:
        raise AlreadyExistsError(
            f"dataset {request.name!r} is of d={there.dimension} and metric {there.metric!r}, not of "
            f"d={wanted[0]} and {wanted[1]!r}: delete it first"
        )


@dataclass(frozen=True)
class _Made:
    """All that is to be published, and what is known of it."""

    url: str
    source: Source
    shards: tuple[Shard, ...]
    facts: list[dict[str, Any]]
    hidden: dict[str, Slots]
    recall: Recall
    n_resumed: int


@dataclass(frozen=True)
class _Run:
    """One run of the driver."""

    request: Request
    place: Place
    bucket: Bucket
    executor: Executor
    progress: Progress

    @property
    def ledger(self) -> Ledger:
        return self.place.ledger()

    @property
    def _progress(self) -> Path:
        """A folder with a file for each shard, which tells how far it has come."""
        return self.place.folder / "progress" / self.place.build

    def check_free(self, there: Manifest | None, dimension: int | None = None) -> None:
        """Refuse to build over what is there, unless an earlier run of this very build has published it."""
        if not self._has_published(there):
            _check_free(there, self.request, dimension)

    def _has_published(self, there: Manifest | None) -> bool:
        """Whether a version is what this build has made, by a run that was ended before it could tell."""
        if there is None or not there.shards:
            return False
        plan = self.ledger.read("plan") or {"shards": 0}
        recorded = [self.ledger.read(shard_stage(number)) for number in range(int(plan["shards"]))]
        own = {found["shard"]["name"] for found in recorded if found is not None}
        return all(shard.name in own for shard in there.shards)

    def made(self, given: Source) -> _Made:
        """Every shard built, and recall measured, as far as earlier runs have not."""
        source, n_shards = self._planned(given)
        self.check_free(Dataset(self.bucket, self.request.name).latest(), source.dimension)
        check_codec(self.request.settings.codec, self.request.settings.metric, source.dimension)
        settings = replace(self.request.settings, shard_ram_bytes=self._shard_ram(n_shards))
        sample = self._sample(source, settings, ceil(source.n_rows / n_shards))
        facts, n_resumed = self._shards(source, settings, n_shards, sample)
        shards = tuple(shard_from(dict(each["shard"])) for each in facts)
        hidden = self._hidden(shards, facts, source)
        recall = self._recall(source, settings, shards, sample, hidden)
        return _Made(self.bucket.url, source, shards, facts, hidden, recall, n_resumed)

    def _shard_ram(self, n_shards: int) -> int | None:
        return None if self.request.ram_bytes is None else max(1, self.request.ram_bytes // n_shards)

    def _planned(self, given: Source) -> tuple[Source, int]:
        """The source with its rows counted, and how many shards they make."""
        self.progress("counting rows", 0, 0)
        source = given.counted(self.place.folder, self.ledger.read("plan"))
        if source.n_rows < 1:
            raise InvalidInputError("there are no rows to build from")
        rows = self.request.rows_per_shard
        if rows is None:
            rows = max(1, min(SHARD_ROWS, SHARD_BYTES // (4 * source.dimension)))
        n_shards = ceil(source.n_rows / rows)
        plan = {**source.counts(), "n_rows": source.n_rows, "shards": n_shards}
        kept = self.ledger.keep("plan", plan)  # that of an earlier run, whose default may have been another
        return source, int(kept["shards"])

    # ---- stages ----------------------------------------------------------------------------------

    def _sample(self, source: Source, settings: Settings, shard_rows: int) -> dict[str, Any]:
        found = self.ledger.read("sample")
        files = _files(*(found[name] for name in ("queries", "given", "quantizer"))) if found else []
        if found is not None and not are_there(self.bucket, files):
            self.ledger.forget("sample")
            found = None
        if found is None:
            self.progress("training", 0, 0)
            spec = settings.index(shard_rows, source.dimension)
            job = SampleJob(self.place, source, settings, spec, self._queries(source, settings))
            list(self.executor.run(stages.sample, [job]))
            found = self.ledger.read("sample")
        assert found is not None
        return found

    def _queries(self, source: Source, settings: Settings) -> Float32 | None:
        """The real queries in the form of stored vectors, checked."""
        if self.request.queries is None:
            return None
        queries, _ = inputs.check_queries(self.request.queries, source.dimension, settings.metric)
        if len(queries) < QUERIES_LEAST:
            raise InvalidInputError(
                f"{len(queries)} queries are too few to measure with: give {QUERIES_LEAST} or more, or none"
            )
        return queries

    def _shards(
        self, source: Source, settings: Settings, n_shards: int, sample: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], int]:
        """What is recorded of every shard, oldest rows first; those that are not there yet are built."""
        found = [self._recorded(number) for number in range(n_shards)]
        edges = [number * source.n_rows // n_shards for number in range(n_shards + 1)]
        jobs = [
            ShardJob(
                self.place,
                source,
                settings,
                number,
                edges[number],
                edges[number + 1],
                sample,
                self._progress / str(number),
            )
            for number in range(n_shards)
            if found[number] is None
        ]
        done = source.n_rows - sum(job.stop - job.first for job in jobs)
        with self._watched(jobs, done, source.n_rows) as ended:
            for i, _ in self.executor.run(stages.build_shard, jobs):
                ended.add(i)
        for job in jobs:
            found[job.number] = self.ledger.read(shard_stage(job.number))
        every = [each for each in found if each is not None]
        if len(every) < n_shards:
            raise ConflictError(f"another run of this build of {self.request.name!r} has ended meanwhile")
        return every, n_shards - len(jobs)

    def _recorded(self, number: int) -> dict[str, Any] | None:
        """The shard that an earlier run has built; None where there is none, or its objects are gone."""
        found = self.ledger.read(shard_stage(number))
        if found is not None:
            files = [*shard_from(dict(found["shard"])).files, *_files(found["hashes"])]
            if not are_there(self.bucket, files):
                self.ledger.forget(shard_stage(number))
                return None
        return found

    @contextmanager
    def _watched(self, jobs: Sequence[ShardJob], done: int, total: int) -> Iterator[set[int]]:
        """Tell, while the block runs, how far the workers have come; it says which jobs have ended.

        Of a worker on another machine no more is known than that.
        """
        for job in jobs:
            job.progress.unlink(missing_ok=True)
        is_over = threading.Event()
        ended: set[int] = set()

        def rows_of(i: int) -> int:
            return jobs[i].stop - jobs[i].first if i in ended else _rows_done(jobs[i])

        def watch() -> None:
            while not is_over.wait(_POLL_S):
                self.progress("building", done + sum(map(rows_of, range(len(jobs)))), total)

        self.progress("building", done, total)
        thread = threading.Thread(target=watch, name="faissbase-progress", daemon=True)
        thread.start()
        try:
            yield ended
        finally:
            is_over.set()
            thread.join()
        self.progress("building", total, total)

    def _hidden(
        self, shards: tuple[Shard, ...], facts: list[dict[str, Any]], source: Source
    ) -> dict[str, Slots]:
        """By shard, the slots of rows that a later shard has anew."""
        if source.is_distinct or len(shards) < 2:
            return {}
        self.progress("looking for replaced rows", 0, 0)
        with draft_folder(self.place.folder) as draft:
            files = [File(**each["hashes"]) for each in facts]
            paths = stages.fetched(files, self.place, draft)
            listed = [Listed(shard, path) for shard, path in zip(shards, paths, strict=True)]
            return replaced(listed, self.bucket, draft)

    def _recall(
        self,
        source: Source,
        settings: Settings,
        shards: tuple[Shard, ...],
        sample: dict[str, Any],
        hidden: dict[str, Slots],
    ) -> Recall:
        self.progress("measuring recall", 0, 0)
        found = {shard.name: self.ledger.read(recall_stage(shard.name, settings.recall)) for shard in shards}
        jobs = [
            MeasureJob(self.place, settings, source.dimension, asdict(shard), sample)
            for shard in shards
            if found[shard.name] is None
        ]
        for _ in self.executor.run(stages.measure, jobs):
            pass
        merging, short = Merging(len(sample["ids"]), settings.metric), []
        for shard in shards:
            answers = found[shard.name] or self.ledger.read(recall_stage(shard.name, settings.recall))
            assert answers is not None
            merging.add(answers, hidden.get(shard.name, NOTHING))
            if not answers["reaches"]:
                short.append((shard, float(answers["recall_low"])))
        recall = merging.recall()
        _check_recall(recall, settings, shards, short)
        return recall

    # ---- publishing ------------------------------------------------------------------------------

    def published(self, dataset: Dataset, made: _Made) -> Manifest:
        """The version that consists of what was built."""
        request, settings, d = self.request, self.request.settings, made.source.dimension
        self.progress("publishing", 0, 0)
        there = dataset.latest()
        if there is not None and self._has_published(there):
            return there
        index_type = check_codec(settings.codec, settings.metric, d)
        facts = (uuid.uuid4().hex, request.name, d, settings.metric, index_type)
        base = Manifest(1, uuid.uuid4().hex, *facts, settings.recall, made.recall.mean, made.shards)
        known = dict.fromkeys(made.hidden, NOTHING)
        shards = with_hidden(base, made.hidden, known, self.bucket, self.place.folder)
        if there is None or there.is_deleted:
            return dataset.begin(base.with_shards(shards))

        def change(newest: Manifest) -> Manifest:
            _check_free(newest, request, d)
            return replace(
                newest,
                shards=shards,
                index_type=index_type,
                target_recall=settings.recall,
                measured_recall=made.recall.mean,
            )

        return dataset.commit(change)

    def clean_up(self) -> None:
        """Remove what has served: the shards belong to a version now. What stays is collected some day."""
        with suppress(UnavailableError):
            sample = self.ledger.read("sample")
            self.bucket.delete([file.key for file in _files(sample and sample["quantizer"])])
            self.ledger.remove()
        shutil.rmtree(self._progress, ignore_errors=True)


def _files(*facts: dict[str, Any] | None) -> list[File]:
    return [File(**each) for each in facts if each is not None]


def _rows_done(job: ShardJob) -> int:
    try:
        return int(job.progress.read_text() or 0)
    except (OSError, ValueError):  # not begun, or on another machine
        return 0


def _check_recall(
    recall: Recall, settings: Settings, shards: tuple[Shard, ...], short: list[tuple[Shard, float]]
) -> None:
    """Refuse what does not reach the target; say what would."""
    target = settings.recall
    if recall.mean is None or (recall.mean >= target and not short):
        return
    told = (
        f"recall@{recall.k} is {recall.mean:.4f} ({recall.low:.4f} to {recall.high:.4f}, "
        f"{recall.n_queries} held-out queries), {target:g} is wanted"
    )
    reached = recall.mean
    if short:
        worst, best = min(short, key=lambda each: each[1])
        reached = min(reached, best)
        told += (
            f"; {len(short)} of {len(shards)} shards have no setting that was measured to reach it, the "
            f"worst ({worst.index}) {best:.4f}"
        )
    ways = [f"--codec {codec}" for codec in finer_codecs(shards[0].index)]
    lower = int(reached * 100) / 100
    if lower > 0:
        ways.append(f"--recall {lower:g}, which needs nothing built anew")
    raise InvalidInputError(f"not published: {told}. What would do: {', or '.join(ways)}")


def _report(request: Request, manifest: Manifest, made: _Made, seconds: float) -> BuildReport:
    facts = made.facts
    return BuildReport(
        name=request.name,
        url=made.url,
        version=manifest.version,
        n_rows=manifest.n_alive,
        n_replaced=made.source.n_rows - manifest.n_alive,
        shards=len(manifest.shards),
        n_resumed=made.n_resumed,
        index="; ".join(dict.fromkeys(shard.index for shard in manifest.shards)),
        recall=made.recall,
        target=request.settings.recall,
        size_bytes=sum(shard.size_bytes for shard in manifest.shards),
        shard_seconds=[each["seconds"] for each in facts],
        shard_cpu_s=[each["cpu_s"] for each in facts],
        peak_bytes=max(each["peak_bytes"] for each in facts),
        seconds=seconds,
    )
