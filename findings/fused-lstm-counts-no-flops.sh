#!/usr/bin/env bash
# torch 2.13.0 (CPU): FlopCounterMode counts 0 for nn.LSTM in float32, and all of it in float64.
#
# In float32 the layer reaches the dispatcher as one operator, mkldnn_rnn_layer, for which the
# table of formulas has no line. In float64 the same layer is made of matrix products, which have
# one. Whoever expresses a budget in FLOPs (or in gradients) gets another unit with the dtype.
#
# Seen for LSTM(16, 32) on (64, 12, 16): float32 0, float64 9437184 = 2 * 64 * 12 * 4 * 32 * (16 + 32).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def counted(dtype):
    layer = nn.LSTM(16, 32, batch_first=True).to(dtype)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(64, 12, 16, dtype=dtype))
    return counter.get_total_flops()


single, double = counted(torch.float32), counted(torch.float64)
print("float32", single, "float64", double)
assert double == 2 * 64 * 12 * 4 * 32 * (16 + 32)
assert single == 0
PYTHON
