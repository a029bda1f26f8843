"""What the benchmark at scale says of its figures."""

from __future__ import annotations

from benchmarks.scale import against_scan, curve


def test_the_curve_is_seconds_a_million_rows_by_size() -> None:
    sizes = [(10_000_000, 250.0, 450.0), (1_000_000, 20.0, 30.0)]
    results = [{"n": n, "build": {"wall_s": wall, "cpu_s": cpu}} for n, wall, cpu in sizes]
    assert curve(results).splitlines() == [
        "build time",
        "    1,000,000 rows    20.0 s a million,   30.0 s of CPU",
        "   10,000,000 rows    25.0 s a million,   45.0 s of CPU",
        "  largest over smallest: 1.25, 1.50 of CPU",
    ]


def test_the_target_beside_the_scan_is_missed_by_many_rows_alone() -> None:
    assert against_scan(121.04, 10**7) == "121.0 times as fast (target 64 from 10,000,000 rows on)"
    assert against_scan(60.0, 10**7).endswith("rows on: MISS)")
    assert against_scan(2.5, 10**5).endswith("rows on)")
