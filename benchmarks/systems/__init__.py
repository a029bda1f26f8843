"""The systems that `benchmarks.ann` compares, one adapter each. See ``interface``."""
