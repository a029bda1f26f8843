"""`Costs` where nothing was measured on the machine: those of one that faissbase was written on.

Measured by ``faissbase bench calibrate`` on 2026-11-28: AMD EPYC (virtual, 2 cores, AVX-512, 32 MiB of
last-level cache), FAISS 1.15.1, one thread, in 18 CPU seconds; rounded to three digits.
"""

from __future__ import annotations

from typing import Final

from faissbase.sharded.costs import CodecCosts, Costs, Line

DEFAULT_COSTS: Final = Costs(
    machine="AMD EPYC",
    measured_on="2026-11-28",
    assign=Line(1.83, 0.0167),
    train_ratio=1.0,
    coarse=Line(0.0, 0.174),
    grouped_assign=Line(2.0, 0.05),
    grouped=Line(28.3, 0.0548),
    rerank=Line(544.0, 0.644),
    record_us=6.04,
    record_bytes=145.0,
    search_us=76.7,
    codecs={
        "Flat": CodecCosts(
            encode=Line(0.0, 3.57),
            scan=Line(0.0, 0.0419),
            probe=Line(1900.0, 0.0),
            start=Line(88400.0, 0.0),
        ),
        "SQ8": CodecCosts(
            encode=Line(24.4, 2.37),
            scan=Line(0.0, 0.121),
            probe=Line(1020.0, 0.0),
            start=Line(116000.0, 0.0),
        ),
        "PQfs": CodecCosts(
            encode=Line(0.0, 20.2),
            scan=Line(1.82, 0.0328),
            probe=Line(679.0, 2.53),
            start=Line(98300.0, 0.0),
        ),
        "RaBitQfs": CodecCosts(
            encode=Line(65.0, 9.43),
            scan=Line(5.4, 0.0363),
            probe=Line(1070.0, 4.96),
            start=Line(92100.0, 16.8),
        ),
        "PQ8": CodecCosts(
            encode=Line(0.0, 67.8),
            scan=Line(3.81, 0.412),
            probe=Line(895.0, 4.62),
            start=Line(109000.0, 47.5),
        ),
    },
)
