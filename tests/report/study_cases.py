"""Studies that ended in every way that one may."""

from tests.report.made_up_study import ARMS, SIZES, UPDATES, Searched, made_up_study

LOST = Searched(best=2e4)  # no trial comes near the target
BROKEN = Searched(status=dict.fromkeys(range(16), ("diverged", "not finite at update 3")))
CASES = {
    "one arm": made_up_study({"adam": Searched()}, comparisons=()),
    "fifteen cells": made_up_study(sizes=SIZES, trials=8),
    "all missed": made_up_study(ARMS | {"adam": LOST}),
    "all failed": made_up_study(ARMS | {"full_hf": BROKEN}),
    "no trial": made_up_study(ARMS | {"adam": Searched(trials=0)}),
    "one trial": made_up_study(ARMS | {"adam": Searched(trials=1), "full_hf": Searched(trials=1)}),
    "a loss": made_up_study(objectives=("final_loss",)),
    "two objectives": made_up_study(objectives=(UPDATES, "seconds_to_target")),
}
