"""Studies that ended in every way that one may."""

from tests.report.synthetic_study import ARMS, SIZES, UPDATES, Searched, synthetic_study

LOST = Searched(best=2e4)  # no trial comes near the target
BROKEN = Searched(status=dict.fromkeys(range(16), ("diverged", "not finite at update 3")))
CASES = {
    "one arm": synthetic_study({"adam": Searched()}, comparisons=()),
    "fifteen cells": synthetic_study(sizes=SIZES, trials=8),
    "all missed": synthetic_study(ARMS | {"adam": LOST}),
    "all failed": synthetic_study(ARMS | {"full_hf": BROKEN}),
    "no trial": synthetic_study(ARMS | {"adam": Searched(trials=0)}),
    "one trial": synthetic_study(
        ARMS | {"adam": Searched(trials=1), "full_hf": Searched(trials=1)}
    ),
    "a loss": synthetic_study(objectives=("final_loss",)),
    "two objectives": synthetic_study(objectives=(UPDATES, "seconds_to_target")),
}
