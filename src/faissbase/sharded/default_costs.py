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
    assign=Line(0.568, 0.0192),
    train_ratio=1.09,
    coarse=Line(7.73, 0.256),
    grouped_assign=Line(1.33, 0.0629),
    grouped=Line(16.9, 0.0925),
    rerank=Line(465.0, 0.43),
    record_us=6.06,
    record_bytes=145.0,
    search_us=75.6,
    codecs={
        "Flat": CodecCosts(
            encode=Line(0.0, 3.8),
            scan=Line(0.0, 0.0578),
            probe=Line(436.0, 0.0),
            start=Line(79600.0, 0.0),
        ),
        "SQ8": CodecCosts(
            encode=Line(13.1, 2.32),
            scan=Line(0.0, 0.129),
            probe=Line(1210.0, 0.951),
            start=Line(83000.0, 0.0),
        ),
        "PQfs": CodecCosts(
            encode=Line(119.0, 19.8),
            scan=Line(2.28, 0.0335),
            probe=Line(539.0, 2.45),
            start=Line(76700.0, 8.83),
        ),
        "RaBitQfs": CodecCosts(
            encode=Line(21.9, 9.5),
            scan=Line(5.48, 0.0314),
            probe=Line(573.0, 5.87),
            start=Line(90900.0, 0.0),
        ),
        "PQ8": CodecCosts(
            encode=Line(0.0, 72.8),
            scan=Line(5.58, 0.285),
            probe=Line(473.0, 7.88),
            start=Line(75600.0, 132.0),
        ),
    },
)
