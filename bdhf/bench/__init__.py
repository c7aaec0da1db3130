"""Benchmarks over commits: asv and `bdhf bench` run `asv_bench/benchmarks`.

This package never imports torch: the measured code runs in separate processes, `worker.py`.
"""
