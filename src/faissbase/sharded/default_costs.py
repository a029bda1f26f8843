"""`Costs` where nothing was measured on the machine: those of one that faissbase was written on.

Measured by ``faissbase bench calibrate`` on 2026-11-27: AMD EPYC (virtual, 2 cores, AVX2, 32 MiB of
last-level cache) beside other work (load 6.5), FAISS 1.15.1, one thread, in 30 CPU seconds; rounded to three
digits.
"""

from __future__ import annotations

from typing import Final

from faissbase.sharded.costs import CodecCosts, Costs, Line

DEFAULT_COSTS: Final = Costs(
    machine="AMD EPYC",
    measured_on="2026-11-27",
    assign=Line(2.35, 0.0278),
    train_ratio=1.08,
    coarse=Line(2.79, 0.477),
    graph_assign=Line(0.0, 364.0),
    graph_probe=Line(1970.0, 10.6),
    rerank=Line(1130.0, 1.34),
    record_us=17.5,
    record_bytes=145.0,
    search_us=245.0,
    codecs={
        "Flat": CodecCosts(
            encode=Line(657.0, 3.55),
            scan=Line(18.0, 0.11),
            probe=Line(0.0, 0.0),
            start=Line(187000.0, 0.0),
        ),
        "SQ8": CodecCosts(
            encode=Line(242.0, 5.6),
            scan=Line(9.3, 0.228),
            probe=Line(0.0, 9.68),
            start=Line(192000.0, 0.0),
        ),
        "PQfs": CodecCosts(
            encode=Line(979.0, 19.1),
            scan=Line(0.0, 0.149),
            probe=Line(2300.0, 0.0),
            start=Line(178000.0, 147.0),
        ),
        "RaBitQfs": CodecCosts(
            encode=Line(0.0, 13.7),
            scan=Line(8.62, 0.055),
            probe=Line(1270.0, 10.7),
            start=Line(201000.0, 43.0),
        ),
        "PQ8": CodecCosts(
            encode=Line(0.0, 118.0),
            scan=Line(8.21, 0.46),
            probe=Line(246.0, 9.21),
            start=Line(207000.0, 285.0),
        ),
    },
)
