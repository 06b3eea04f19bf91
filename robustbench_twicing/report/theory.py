"""The page of `theory`: the idealised decay, the smoother's bias, and measured models beside them."""

from collections.abc import Sequence
from typing import Any

from robustbench_twicing.inside.found import Collapse
from robustbench_twicing.inside.theory import Bias, Capacity, order_of
from robustbench_twicing.report.numbers import decimal
from robustbench_twicing.report.page import Column, Curves, Graph, Line, Page, Table

_DEPARTS = (
    "The idealisation applies one symmetric operator again and again. A network has another A in every block, with "
    "several heads, none symmetric; values, output matrices, residual connections and MLPs lie between them. "
    "So measured curves need not follow the theory's: they lie beside them to be seen, and test nothing."
)


def theory_page(capacities: Sequence[Capacity], biases: Sequence[Bias], measured: Collapse | None) -> Page:
    """`measured`: a collapse on clean images, or None."""
    late = [float(one.n) for one in capacities[-4:]]
    fast, slow = (order_of([getattr(one, key) for one in capacities[-4:]], late) for key in ("softmax", "twicing"))
    sizes = [one.bandwidth for one in biases]
    plain, twice = (order_of([getattr(one, key) for one in biases], sizes) for key in ("plain", "twicing"))
    parts: list[Line | Table | Curves] = [
        _capacities(capacities),
        Line(
            f"Powers of n over the last rows: {decimal(fast)} for xⁿ, {decimal(slow)} for (2x − x²)ⁿ (limits −1, −½)."
        ),
        _biases(biases),
        Line(
            f"Powers of the bandwidth: {decimal(plain)} with K, {decimal(twice)} with 2K − K∗K (limits 2 and 4 as it "
            "becomes small)."
        ),
    ]
    if measured is not None:
        parts += [*_laid_over(measured), Line(_DEPARTS, "warning")]
    parts.append(Line("docs/inside.md has the formulas and their sources.", "note"))
    headline = Line("In the idealised setting capacity falls as 1/n under A and as 1/√n under 2A − A².", "strong")
    facts = {
        "capacities": [one._asdict() for one in capacities],
        "biases": [one._asdict() for one in biases],
        "orders": {"softmax": fast, "twicing": slow, "bias": plain, "bias_twicing": twice},
    }
    if measured is not None:
        facts["measured"] = list(_rows(measured))
    return Page("The idealised setting", tuple(parts), headline=headline, facts=facts)


def _capacities(capacities: Sequence[Capacity]) -> Table:
    columns = (
        Column("n", "n", "count"),
        Column("softmax", "∫ xⁿ = 1/(n+1)", "decimal6"),
        Column("twicing", "∫ (2x−x²)ⁿ = ½B(½, n+1)", "decimal6"),
        Column("twicing_limit", "√π/(2√n)", "decimal6"),
    )
    return Table("capacities", "Capacity κ after n applications", columns, tuple(one._asdict() for one in capacities))


def _biases(biases: Sequence[Bias]) -> Table:
    columns = (
        Column("bandwidth", "bandwidth", "decimal"),
        Column("plain", "K", "decimal6"),
        Column("plain_exact", "exact", "decimal6"),
        Column("twicing", "2K − K∗K", "decimal6"),
        Column("twicing_exact", "exact", "decimal6"),
        Column("error", "std. error", "decimal6"),
    )
    title = "Bias of Nadaraya-Watson smoothing: share of a sine that is lost, simulated"
    return Table("biases", title, columns, tuple(one._asdict() for one in biases))


def _rows(measured: Collapse) -> list[dict[str, Any]]:
    """Behind each block what is left of the distance to equal rows, over that of the input."""
    rows = []
    for one in measured.looked:
        held = {place.number: one.figures.get((place.number, "distance")) for place in one.places}
        first = held.get(0)
        for number, found in held.items():
            if first is not None and found is not None and first.value:
                rows.append({"model": one.model, "n": number, "left": found.value / first.value})
    return rows


def _laid_over(measured: Collapse) -> list[Table | Curves]:
    rows = _rows(measured)
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_model = {model: {row["n"]: row["left"] for row in rows if row["model"] == model} for model in models}
    numbers = [n for n in by_model[models[0]] if all(n in held for held in by_model.values())] if models else []
    if len(numbers) < 2:
        return []
    from robustbench_twicing.inside.theory import capacity

    lines = {"theory: xⁿ": [capacity(n) for n in numbers], "theory: (2x − x²)ⁿ": [capacity(n, 2) for n in numbers]}
    lines |= {model: [by_model[model][n] for n in numbers] for model in models}
    columns = (Column("n", "n", "count"), *(Column(name, name, "decimal3") for name in lines))
    table = Table(
        "measured",
        "κ behind n blocks, beside the measured distance to equal rows over the input's",
        columns,
        tuple({"n": n, **{name: values[row] for name, values in lines.items()}} for row, n in enumerate(numbers)),
    )
    graphs = tuple(
        Graph(name, tuple(min(value, 1.0) for value in values), *(tuple(min(v, 1.0) for v in values),) * 2)
        for name, values in lines.items()
    )
    x, names = tuple(map(float, numbers)), tuple(map(str, numbers))
    return [table, Curves("decay", "What is left of the input", "blocks", x, names, graphs, "left in %")]
