"""The benchmarks of asv and `bdhf bench`: one file per subject, one class per set of parameters.

A `time_*` gives the seconds of one call, a `track_*` its return value; lower is better for all. An
`exact` number (see `tracked`) is a count that an unchanged algorithm reproduces to the last digit:
it is computed in float64 on one thread. A combination that cannot be measured raises
NotImplementedError in `setup` and is left out. asv calls `setup` before every timed call, so it
only looks up objects in memory.
"""
