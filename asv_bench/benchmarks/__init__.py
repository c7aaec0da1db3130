"""What asv and `bdhf bench` measure: one file a subject, one class a set of parameters.

A `time_*` is seconds of one call, a `track_*` what it returns; lower is better for all. What is
`exact` (see `tracked`) is a count that an unchanged algorithm gives again to the last digit: it is
computed in float64 on one thread. What a machine or a combination cannot do raises
NotImplementedError in `setup` and is left out. Set-up is called before every timed call, so it only
looks up what is kept in memory.
"""
