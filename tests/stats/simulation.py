"""Error rates of the tests of a comparison, by simulation: `python -m tests.stats.simulation`.

Each scenario draws ablations with known ground truth, tests every one of them, and returns a table
of rates with a row per setting. LIMITS bounds the rates, up to 2 standard errors of the simulation.
docs/statistics.md has the results.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bdhf.stats.inference import power
from tests.stats import uncertain, vectorised
from tests.stats.simulated_costs import CostModel, at_margin

UNCERTAIN_PAIRS, UNCERTAIN_DRAWS = (5, 8, 12), 2000
PAIRS, MISSES, ALPHA, MARGIN = (6, 8, 12), (0.0, 0.3, 0.7), 0.05, 1.1
PAGE, MARKS = Path("docs/statistics.md"), ("<!-- simulated -->", "<!-- end -->")


def null(draws):
    """Identical arms: three candidates, one baseline; single tests are of the first candidate."""
    rows = []
    for n, misses, rng in settings():
        costs, _ = CostModel(1.0, 0.25, misses).draw(rng, draws, n, candidates=3)
        d = np.log(costs[:, :3] / costs[:, 3:])
        p = np.stack([vectorised.two_sided(d[:, i]) for i in range(3)], axis=1)
        rows.append(
            setting(n, misses)
            | {
                "p ≤ 0.05": (p[:, 0] <= ALPHA).mean(),
                "interval covers": vectorised.covers(d[:, 0], 0.0, ALPHA).mean(),
                "any of 3 better or worse": (vectorised.holm(p) <= ALPHA).any(axis=1).mean(),
                "Wilcoxon": (vectorised.wilcoxon(d[:, 0]) <= ALPHA).mean(),
                "BCa covers": np.nanmean(vectorised.bca_covers(d[:, 0], 0.0, ALPHA)),
            }
        )
    return pd.DataFrame(rows)


def margin(draws):
    """Arms that differ by exactly the margin, and so are not equivalent."""
    rows = []
    for sd in (0.1, 0.25):
        for n, misses, rng in settings((0.0, 0.1, 0.3, 0.7)):
            d, hits = at_margin(MARGIN, sd, misses).log_ratios(rng, draws, n)
            everything = vectorised.tost(d, MARGIN)
            p_t, p_flip = vectorised.equivalence(d, hits, MARGIN)
            p = np.maximum(p_t, p_flip)
            rows.append(
                {"sd": f"{sd:g}"}
                | setting(n, misses)
                | {
                    "p_t": (p_t <= ALPHA).mean(),
                    "p_flip": (p_flip <= ALPHA).mean(),
                    "p": (p <= ALPHA).mean(),
                    "equivalent": ((p <= ALPHA) & vectorised.enough(hits)).mean(),
                    "p over all pairs": (np.maximum(*everything) <= ALPHA).mean(),
                }
            )
    return pd.DataFrame(rows)


def capped(draws):
    """Arms whose costs differ by half, with a budget that many runs miss."""
    rows = []
    for n, misses, rng in settings():
        if misses:
            d, hits = CostModel(1.5, 0.25, misses).log_ratios(rng, draws, n)
            everything = np.maximum(*vectorised.tost(d, MARGIN)) <= ALPHA
            same = np.maximum(*vectorised.equivalence(d, hits, MARGIN)) <= ALPHA
            enough = vectorised.enough(hits)
            rows.append(
                setting(n, misses)
                | {
                    "equivalent": (same & enough).mean(),
                    "without the 80 % rule": same.mean(),
                    "80 % rule, all pairs": (everything & enough).mean(),
                    "no rule, all pairs": everything.mean(),
                }
            )
    return pd.DataFrame(rows)


def effect(draws):
    """A candidate with 0.8 of the costs: coverage of the restricted ratio."""
    rows = []
    for n, misses, rng in settings():
        cost_model = CostModel(0.8, 0.25, misses)
        d, _ = cost_model.log_ratios(rng, draws, n)
        rows.append(
            setting(n, misses)
            | {
                "true ratio": np.exp(cost_model.truth),
                "interval covers": vectorised.covers(d, cost_model.truth, ALPHA).mean(),
                "BCa covers": np.nanmean(vectorised.bca_covers(d, cost_model.truth, ALPHA)),
                "p ≤ 0.05": (vectorised.two_sided(d) <= ALPHA).mean(),
            }
        )
    return pd.DataFrame(rows)


def planned(draws):
    """A candidate with 0.8 of the costs: predicted and observed power."""
    rows = []
    for sd in (0.15, 0.25, 0.35):
        for n in PAIRS:
            d, _ = CostModel(0.8, sd, 0.0).log_ratios(np.random.default_rng(n), draws, n)
            predicted = power.power(np.log(0.8), sd, n, ALPHA)
            observed = (vectorised.two_sided(d) <= ALPHA).mean()
            rows.append(
                {"sd": f"{sd:g}", "pairs": str(n), "predicted": predicted, "observed": observed}
                | {"difference": abs(observed - predicted)}
            )
    return pd.DataFrame(rows)


def seeds(draws, cases=((0.7, 0.35), (0.8, 0.25), (0.8, 0.35), (0.9, 0.15), (0.9, 0.2))):
    """Power with the pairs of `seeds_to_decide` for 80 %; the last row is for equivalence."""
    rows = []
    for ratio, sd in (*cases, (1.0, 0.1)):
        same = MARGIN if ratio == 1 else np.nan
        n = int(power.seeds_to_decide(np.log(ratio), sd, ALPHA, same))
        d, hits = CostModel(ratio, sd, 0.0).log_ratios(np.random.default_rng(n), draws, n)
        p = (
            np.maximum(*vectorised.equivalence(d, hits, MARGIN))
            if ratio == 1
            else vectorised.two_sided(d)
        )
        rows.append(
            {"true ratio": f"{ratio:g}", "sd": f"{sd:g}", "pairs": str(n)}
            | {"power": (p <= ALPHA).mean()}
        )
    return pd.DataFrame(rows)


def uncertain_runs(draws):
    """Seconds with a budget of updates: a share of runs is slow, lost or diverged (2,000 draws)."""
    return _uncertain(draws, [(kind, share) for kind in uncertain.KINDS for share in (0.1, 0.3)])


def coarse(draws):
    """Costs recorded at the next evaluation, at about 300 updates (2,000 draws)."""
    return _uncertain(draws, [("coarse", every) for every in (25, 100, 200)])


def costlier(draws):
    """Seconds, where an update of one arm takes ten times as long (2,000 draws)."""
    return _uncertain(draws, [("costlier", every) for every in (1, 5, 25)])


def _uncertain(draws, cells):
    rows = []
    for kind, share in cells:
        for n in UNCERTAIN_PAIRS:
            how = {"every": f"{share:g}"} if kind in uncertain.EVALUATED else {
                "runs": kind, "share": f"{share:.0%}".replace("%", " %")}  # fmt: skip
            rates = uncertain.rates(min(draws, UNCERTAIN_DRAWS), n, kind, share)
            rows.append(how | {"pairs": str(n)} | rates)
    return pd.DataFrame(rows)


SCENARIOS = {
    f.__name__: f
    for f in (null, margin, capped, planned, seeds, effect, uncertain_runs, coarse, costlier)
}

#: Scenarios that are tested one draw at a time -> their largest number of draws.
DRAWN = dict.fromkeys(("uncertain_runs", "coarse", "costlier"), UNCERTAIN_DRAWS)

#: scenario -> column -> (least, most), up to the error of the simulation.
LIMITS = {
    "null": {
        "p ≤ 0.05": (0.0, ALPHA),
        "interval covers": (1 - ALPHA, 1.0),
        "any of 3 better or worse": (0.0, ALPHA),
    },
    "margin": dict.fromkeys(("p_t", "p_flip", "p", "equivalent"), (0.0, ALPHA)),
    "capped": {"equivalent": (0.0, ALPHA)},
    "planned": {"difference": (0.0, 0.05)},
    "seeds": {"power": (0.75, 0.87)},
    "effect": {},
    "uncertain_runs": {
        "identical: better or worse": (0.0, ALPHA),
        "at the margin: equivalent": (0.0, ALPHA),
        "contradicts all runs": (0.0, 0.0),
    },
    "coarse": {
        "identical: better or worse": (0.0, ALPHA),
        "at the margin: equivalent": (0.0, ALPHA),
    },
    "costlier": {
        "identical: better or worse": (0.0, ALPHA),
        "at the margin: equivalent": (0.0, ALPHA),
    },
}


def settings(shares=MISSES):
    """Every number of pairs with every share of misses, each with its own generator."""
    for n in PAIRS:
        for misses in shares:
            yield n, misses, np.random.default_rng([n, int(100 * misses)])


def setting(n, misses):
    """The first columns of a row."""
    return {"pairs": str(n), "misses": f"{misses:.0%}".replace("%", " %")}


def broken(name, table, draws):
    """The rates of a scenario that exceed a limit by more than 2 standard errors."""
    faults = []
    for column, limit in LIMITS[name].items():
        least, most = (
            b + side * 2 * np.sqrt(b * (1 - b) / draws)
            for side, b in zip((-1, 1), limit, strict=True)
        )
        beyond = table[~table[column].between(least, most)]
        faults += [f"{name}: {column} in {row}" for row in beyond.to_dict("records")]
    return faults


def markdown(table):
    """A table as Markdown, rates with three digits."""
    cells = [[v if isinstance(v, str) else f"{v:.3f}" for v in row] for row in table.to_numpy()]
    lines = [list(table.columns), ["---"] * table.shape[1], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def limits(name):
    """The limits of a scenario, in words."""
    words = [
        f"{column} at most {most:g}" if least == 0 else f"{column} at least {least:g}"
        + (f" and at most {most:g}" if most < 1 else "")
        for column, (least, most) in LIMITS[name].items()
    ]  # fmt: skip
    return f"Limits: {'; '.join(words)}." if words else "No limits."


def put(page, tables):
    """Replace the text between the marks of a page by the tables; create a missing page."""
    text = page.read_text(encoding="utf-8") if page.exists() else "\n".join(MARKS)
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    whole = f"{before}{MARKS[0]}\n\n{tables}\n{MARKS[1]}{after}"
    page.write_text(whole, encoding="utf-8")


def main():
    """Run every scenario, print its table, and write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000, help="ablations per row")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write the tables into")
    options = parser.parse_args()
    faults, text = [], [f"{options.draws:,} draws per row.\n"]
    for name, scenario in SCENARIOS.items():
        table = scenario(options.draws)
        faults += broken(name, table, min(options.draws, DRAWN.get(name, options.draws)))
        section = f"**{name}** · {scenario.__doc__}\n\n{markdown(table)}\n\n{limits(name)}\n"
        sys.stdout.write(f"{section}\n")
        sys.stdout.flush()
        text.append(section)
    put(options.out, "\n".join(text))
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main()
