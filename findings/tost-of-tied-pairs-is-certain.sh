#!/usr/bin/env bash
# statsmodels 0.15.0: ttost_paired is certain (p = 0) that two pairs of equal values are equivalent.
#
# Without a spread the t statistic is infinite, and a division by zero is all that is said. Rounded
# data tie easily: costs that are recorded at every 200th step, of two methods whose true ratio is
# exactly the margin of 1.1, are called equivalent at the 5 % level in 37 of 100 samples of 5 pairs.
#
# Seen: p 0.0, t inf and -inf; 0.3665 of 2,000 samples.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet statsmodels==0.15.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
from statsmodels.stats.weightstats import ttost_paired

warnings.simplefilter("ignore")


def p_value(x, y):
    return float(ttost_paired(x, y, 1 / 1.1, 1.1, transform=np.log)[0])


def rounded(costs):
    return np.ceil(costs / 200) * 200


two = np.array([200.0, 200.0])
rng, passed = np.random.default_rng(0), 0
for _ in range(2000):
    shared = 300 * np.exp(0.3 * rng.standard_normal(5))
    slower = 1.1 * shared * np.exp(0.07 * rng.standard_normal(5))
    faster = shared * np.exp(0.07 * rng.standard_normal(5))
    passed += p_value(rounded(slower), rounded(faster)) <= 0.05
print("two tied pairs", p_value(two, two), "rounded, at the margin", passed / 2000)
assert p_value(two, two) == 0.0
assert passed / 2000 > 0.3
PYTHON
