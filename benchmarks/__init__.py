"""Side-by-side ratios, measured in one run: ``python -m benchmarks``."""
