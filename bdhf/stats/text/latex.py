"""Results as a table of LaTeX, for a paper.

Names come from a spec, or from a results folder of unknown origin: whatever they contain, each row
stays one row, and each comment one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bdhf.stats.result import Result, Verdict
from bdhf.text.formatting import percent, plain_p, ratio
from bdhf.text.printable import stripped_line

_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "÷": r"$\div$", "∞": r"$\infty$"}
    | {"<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': "''", "–": "--", "λ": r"$\lambda$"}
    | {"[": "{[}", "*": "{*}"}  # after \\ and \midrule they would be arguments
)

_HEAD = r"""\begin{{tabular}}{{lllrrrrl}}
\toprule
comparison & estimand & ratio ({interval}) & $p$ & $p_\mathrm{{Holm}}$ & pairs & w/t/l & verdict \\
\midrule"""


def to_latex(results: Sequence[Result], more: Sequence[str] = ()) -> str:
    """A `tabular` for the package booktabs, a row per comparison; flags follow as comments.

    The lines of `more` follow as comments too. Names are escaped, without control characters.
    Letters beyond the Latin script need a font that has them (LuaLaTeX, XeLaTeX).
    """
    rows = [" & ".join(map(escaped, _cells(result))) + r" \\" for result in results]
    notes = [
        f"% {stripped_line(f'{result.name}: {flag}')}"
        for result in results
        for flag in result.flags
    ]
    notes += [f"% {stripped_line(line)}" for line in more]
    level = f"{percent(1 - results[0].alpha)} " if results else ""  # one for all of an ablation
    head = _HEAD.format(interval=escaped(f"{level}interval"))
    return "\n".join([head, *rows, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def escaped(text: str) -> str:
    r"""Text as LaTeX sets it.

    >>> escaped("val_loss ≤ 0.02"), escaped("[50%]")
    ('val\\_loss $\\leq$ 0.02', '{[}50\\%]')
    """
    return stripped_line(text).translate(_SPECIAL)


def _cells(result: Result) -> tuple[str, ...]:
    limits = (
        f" ({ratio(result.ratio_low)} to {ratio(result.ratio_high)})"
        if math.isfinite(result.ratio_high)
        else ""
    )
    return (
        result.name,
        result.question,
        ratio(result.ratio) + limits,
        plain_p(result.p, result.alpha),
        plain_p(result.p_holm, result.alpha),
        f"{result.pairs}/{result.planned}",
        f"{result.wins}/{result.ties}/{result.losses}",
        _verdict(result),
    )


def _verdict(result: Result) -> str:
    if result.verdict is Verdict.EQUIVALENT:
        return f"equivalent within {result.margin:g}×"
    return str(result.verdict)
