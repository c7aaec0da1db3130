"""The local engine on a results folder, and an observer that records its calls."""

from bdhf.experiments.engines.local import Conditions, run_all
from bdhf.experiments.spec.schema import Safety


class Silent:
    """An observer that only records its calls."""

    def __init__(self):
        self.log = []

    def started(self, run):
        self.log.append(("started", run.run_id))

    def evaluated(self, run, row):
        self.log.append(("evaluated", run.run_id, row["update"]))

    def finished(self, run, status, reason):
        self.log.append(("finished", run.run_id, status))


def engine(store, plan, workers=2, observer=None):
    """Run the plan."""
    conditions = Conditions(workers, safety=Safety(seconds=60))
    return run_all(store.unfinished(plan), store, conditions, observer or Silent())
