#!/usr/bin/env bash
# torch 2.13.0 (CPU): one torch.func.jvp through a compiled module ends compilation for its whole class.
#
# A module that torch.compile has compiled runs eagerly from then on, and so does every other
# compiled instance of its class, also where no transform is active. Nothing is raised or warned
# of, and the numbers are right, so only a clock shows it: seconds before and after the JVP do not
# compare. Counted here by a backend that counts the calls of the compiled graph.
#
# Seen: "compiled calls before: 1 1, after: 0 0"; torch._dynamo.reset() brings them back: "1 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn

calls = 0


def counting(graph, example):
    def run(*arguments):
        global calls
        calls += 1
        return graph(*arguments)

    return run


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return torch.tanh(self.linear(x))


def compiled_calls(module):
    global calls
    calls = 0
    module(x)
    return calls


x = torch.randn(4, 3)
first, second = (torch.compile(Net(), backend=counting) for _ in range(2))
before = [compiled_calls(first), compiled_calls(second)]
torch.func.jvp(first, (x,), (x,))
after = [compiled_calls(first), compiled_calls(second)]
torch._dynamo.reset()
reset = [compiled_calls(first), compiled_calls(second)]
print("compiled calls before:", *before, "after:", *after, "after a reset:", *reset)
assert (before, after, reset) == ([1, 1], [0, 0], [1, 1])
PYTHON
