"""Benchmarks: what the design promises, measured as CPU time and ratios. Run by `make bench`."""
