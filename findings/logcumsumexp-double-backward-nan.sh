#!/usr/bin/env bash
# torch 2.13.0 (CPU): differentiating the VJP of logcumsumexp in its vector gives NaN at zero.
#
# A VJP is linear in its vector u, so the derivative in u is the Jacobian whatever u is, and the
# usual way to a JVP by two reverse sweeps starts at u = 0. There torch gives NaN; at u = 1 the
# same sweeps are right, and so is forward mode.
#
# Seen for J 1 (which is 1 everywhere): at u = 0 all NaN, at u = 1 all 1, forward mode all 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

torch.manual_seed(0)
x = torch.randn(5, dtype=torch.float64, requires_grad=True)
ones = torch.ones(5, dtype=torch.float64)


def by_two_sweeps(start):
    u = start.clone().requires_grad_()
    (vjp,) = torch.autograd.grad(torch.logcumsumexp(x, 0), x, u, create_graph=True)
    return torch.autograd.grad(vjp, u, ones)[0]


zero, one = by_two_sweeps(0 * ones), by_two_sweeps(ones)
forward = torch.func.jvp(lambda x: torch.logcumsumexp(x, 0), (x.detach(),), (ones,))[1]
print("at u = 0", zero.tolist(), "at u = 1", one.tolist(), "forward mode", forward.tolist())
assert zero.isnan().all()
torch.testing.assert_close(one, ones)
torch.testing.assert_close(forward, ones)
PYTHON
