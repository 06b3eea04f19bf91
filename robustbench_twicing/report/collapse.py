"""The page of `collapse`: tokens and attention block by block, and models compared."""

from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_twicing.inside.figures import BY_KEY, FIGURES, Of
from robustbench_twicing.inside.found import Collapse, Looked, Measured
from robustbench_twicing.report.numbers import count, decimal, signed
from robustbench_twicing.report.page import Column, Curves, Graph, Line, Page, Row, Sheet, Table

_TITLES: dict[Of, str] = {
    "tokens": "Patch tokens",
    "attention": "A, the attention matrix: means over heads",
    "operator": "What the method has in the place of A: means over heads",
}
_DRAWN = ("similarity", "distance", "high_frequency", "effective_rank")


def collapse_page(found: Collapse) -> Page:
    """A table for each kind of matrix, differences from the first model with their intervals, and curves by block."""
    parts: list[Line | Table | Curves] = [
        Line(
            f"{count(found.images)} image(s) of {found.data}; means over images. Residual stream behind each block, "
            "before any last normalisation.",
            "note",
        )
    ]
    for kind, title in _TITLES.items():
        if (table := _table(found, kind, title)) is not None:
            parts.append(table)
    differences = _differences(found)
    if differences.rows:
        parts.append(differences)
    parts += [*_curves(found), *_notes(found)]
    return Page(
        f"Inside {', '.join(dict.fromkeys(one.model for one in found.looked))}",
        tuple(parts),
        headline=_headline(found),
        facts=_facts(found),
        sheet=Sheet(tuple(_sheet(found)), ("model", "minus", "threat", "number", "place", "figure")),
    )


def _table(found: Collapse, kind: Of, title: str) -> Table | None:
    rows = [
        {
            "model": one.model,
            "threat": one.threat,
            "place": place.name,
            **{
                figure.key: one.figures[place.number, figure.key].value
                for figure in FIGURES
                if figure.of == kind and (place.number, figure.key) in one.figures
            },
        }
        for one in found.looked
        for place in one.places
    ]
    rows = [row for row in rows if len(row) > 3]
    if not rows:
        return None
    shown = [figure for figure in FIGURES if any(figure.key in row for row in rows)]
    threats = len({one.threat for one in found.looked}) > 1
    columns = (
        Column("model", "model"),
        *([Column("threat", "threat")] if threats else []),
        Column("place", "behind"),
        *(Column(figure.key, figure.heading, "decimal3", narrow="last") for figure in shown),
    )
    return Table(kind, title, columns, tuple(rows), groups=("model", "threat"))


def _differences(found: Collapse) -> Table:
    """In the last place that both models have, where collapse is strongest."""
    rows = [
        {
            "model": model,
            "threat": threat,
            "figure": BY_KEY[key].heading
            if BY_KEY[key].of == "tokens"
            else f"{BY_KEY[key].heading} ({BY_KEY[key].of})",
            "difference": signed(measured.value, 4),
            "interval": _ends(measured),
            "n": measured.n,
        }
        for (model, threat, number, key), measured in _in_order(found)
        if number == _last(found, model)
    ]
    columns = (
        Column("model", "model"),
        Column("threat", "threat"),
        Column("figure", "figure"),
        Column("difference", "difference", "eps"),
        Column("interval", "95 % interval", "eps"),
        Column("n", "images", "count"),
    )
    title = f"Last block: minus {found.looked[0].model}, on the same images"
    return Table("differences", title, columns, tuple(rows), groups=("model", "threat"))


def _in_order(found: Collapse) -> list[tuple[tuple[str, str, int, str], Measured]]:
    """Model by model, each under its threats, the figures in the order of their table."""
    order = list(BY_KEY)
    return sorted(found.differences.items(), key=lambda item: (*item[0][:3], order.index(item[0][3])))


def _ends(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return "too few images"
    return f"{signed(measured.low, 4)} to {signed(measured.high, 4)}"


def _last(found: Collapse, model: str) -> int:
    numbers = [number for name, _, number, _ in found.differences if name == model]
    return max(numbers, default=-1)


def _curves(found: Collapse) -> Iterator[Curves]:
    """Of each figure that lies between 0 and 1, and of the effective rank over that of the first place."""
    for threat in dict.fromkeys(one.threat for one in found.looked):
        looked = [one for one in found.looked if one.threat == threat]
        if len({one.places for one in looked}) > 1:
            continue  # blocks of two networks that have not the same are no common axis
        for key in _DRAWN:
            graphs = [graph for one in looked if (graph := _graph(one, key)) is not None]
            if graphs:
                numbers = [place.number for place in looked[0].places if (place.number, key) in looked[0].figures]
                names = [place.name.removeprefix("block ") for place in looked[0].places if place.number in numbers]
                title = BY_KEY[key].heading + (", % of the input's" if key == "effective_rank" else "")
                yield Curves(
                    f"{key}-{threat}",
                    f"{title} ({threat})",
                    "behind block",
                    tuple(map(float, numbers)),
                    tuple(names),
                    tuple(graphs),
                    f"{BY_KEY[key].heading} in %",
                )


def _graph(one: Looked, key: str) -> Graph | None:
    held = [one.figures[place.number, key] for place in one.places if (place.number, key) in one.figures]
    if len(held) < 2:
        return None
    unit = max(measured.value for measured in held) if key == "effective_rank" else 1.0

    def within(value: float | None, measured: Measured) -> float:
        return min(max((measured.value if value is None else value) / unit, 0.0), 1.0)

    return Graph(
        one.model,
        tuple(within(measured.value, measured) for measured in held),
        tuple(within(measured.low, measured) for measured in held),
        tuple(within(measured.high, measured) for measured in held),
    )


def _headline(found: Collapse) -> Line | None:
    """What becomes of the tokens' similarity from the first to the last place."""
    said = []
    first_threat = found.looked[0].threat
    for one in found.looked:
        held = [
            one.figures[place.number, "similarity"]
            for place in one.places
            if (place.number, "similarity") in one.figures
        ]
        if one.threat == first_threat and len(held) > 1:
            said.append(f"{one.model} from {decimal(held[0].value)} to {decimal(held[-1].value)}")
    if not said:
        return None
    return Line(f"Similarity of patch tokens, first place to last: {'; '.join(said)}.", "strong")


def _notes(found: Collapse) -> Iterator[Line]:
    for model in dict.fromkeys(one.model for one in found.looked):
        looked = next(one for one in found.looked if one.model == model)
        if looked.attention:
            yield Line(f"{model}: {looked.attention} attention")
        yield from (Line(f"{model}: {missing}", "warning") for missing in looked.missing)
    if found.images < 2:
        yield Line("An interval needs 2 images at least: raise --limit.", "warning")
    yield Line(
        "Intervals are Student's, over images: of these weights, not of a method, and each for itself. "
        "docs/inside.md says what the figures are.",
        "note",
    )


def _sheet(found: Collapse) -> Iterator[Row]:
    for one in found.looked:
        names = {place.number: place.name for place in one.places}
        for (number, key), measured in sorted(one.figures.items()):
            yield {"model": one.model, "minus": "", "threat": one.threat, "number": number} | _said(
                names[number], key, measured
            )
    first: Sequence[Any] = found.looked[0].places
    names = {place.number: place.name for place in first}
    for (model, threat, number, key), measured in _in_order(found):
        about = {"model": model, "minus": found.looked[0].model, "threat": threat, "number": number}
        yield about | _said(names.get(number, str(number)), key, measured)


def _said(place: str, key: str, measured: Measured) -> dict[str, Any]:
    return {"place": place, "figure": key, **measured._asdict()}


def _facts(found: Collapse) -> dict[str, Any]:
    rows = list(_sheet(found))
    return {
        "data": found.data,
        "images": found.images,
        "figures": [row for row in rows if not row["minus"]],
        "differences": [row for row in rows if row["minus"]],
        "attention": {one.model: one.attention for one in found.looked},
        "missing": {one.model: list(one.missing) for one in found.looked},
        "meaning": {figure.key: figure.meaning for figure in FIGURES},
    }
