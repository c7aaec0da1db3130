#!/usr/bin/env bash
# optuna 5.0.0 with cmaes 0.13.1: what CmaEsSampler draws depends on the number of the trial.
#
# A trial that failed without any parameter is part of no population. It takes a number all the same,
# and the sampler seeds its draw by that number: the same seed, the same finished trials and the same
# values give another suggestion after a failed one. TPESampler and RandomSampler do not. A study that
# is resumed after a crash, which leaves failed trials, is therefore another one under CMA-ES.
#
# Seen, x of the trial after 12 finished ones, without and with a failed trial:
#   cmaes 0.0224, 0.0564   tpe -0.356, -0.356   random -0.166, -0.166
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 cmaes==0.13.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PYTHON'
import random
import warnings

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

warnings.filterwarnings("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}


def suggested(sampler, failed):
    study, draw = optuna.create_study(sampler=sampler), random.Random(3)
    for _ in range(12):
        point = {name: draw.uniform(-1, 1) for name in SPACE}
        value = point["x"] ** 2 + point["y"] ** 2
        study.add_trial(create_trial(params=point, distributions=SPACE, value=value))
    for _ in range(failed):
        study.add_trial(create_trial(state=TrialState.FAIL))
    trial = study.ask()
    return round(trial.suggest_float("x", -1, 1), 4)


seen = {
    "cmaes": [suggested(CmaEsSampler(seed=1, n_startup_trials=5), n) for n in (0, 1)],
    "tpe": [suggested(TPESampler(seed=1), n) for n in (0, 1)],
    "random": [suggested(RandomSampler(seed=1), n) for n in (0, 1)],
}
print(seen)
assert seen["cmaes"][0] != seen["cmaes"][1]
assert seen["tpe"][0] == seen["tpe"][1]
assert seen["random"][0] == seen["random"][1]
PYTHON
