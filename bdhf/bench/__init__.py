"""Benchmarks over commits: what asv and `bdhf bench` do with `asv_bench/benchmarks`.

Never imports torch: what is measured runs in processes of its own, `worker.py`.
"""
