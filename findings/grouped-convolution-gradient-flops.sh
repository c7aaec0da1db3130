#!/usr/bin/env bash
# torch 2.13.0 (CPU): FlopCounterMode counts the weight gradient of a grouped convolution `groups`
# times too high.
#
# The gradient of the weight takes as many multiplications as the forward pass: every weight meets
# every output position once in each. Forward the count falls with the number of groups, as it should;
# backward it stays that of one group. A depthwise layer of 16 channels is counted 16 times, so a model
# of such layers seems to need several forward passes more per training step than it does, and a cost
# in units of its gradient comes out too low.
#
# Seen for Conv2d(16, 16, 3, padding=1, bias=False) on (1, 16, 8, 8), inputs without gradient:
# backward ÷ forward is 1, 2, 4, 16 for 1, 2, 4, 16 groups.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def passes(groups):
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
    with FlopCounterMode(display=False) as forward:
        y = layer(torch.randn(1, 16, 8, 8))
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


for groups in (1, 2, 4, 16):
    forward, backward = passes(groups)
    print(groups, "groups: forward", forward, "backward", backward)
    assert forward == 2 * 64 * 16 * (16 // groups) * 9
    assert backward == groups * forward
PYTHON
