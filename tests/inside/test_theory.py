"""`theory`: closed forms against numerical integrals, limits, and the order of a smoother's bias."""

import json
import math

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.inside.theory import biases, capacity, capacity_limit, integrated, order_of


@pytest.mark.parametrize("n", [1, 2, 7, 100, 10_000])
def test_closed_forms_are_what_numerical_integration_gives(n: int) -> None:
    assert capacity(n) == pytest.approx(1 / (n + 1))
    assert capacity(n) == pytest.approx(integrated(n, 0.0), rel=1e-9)
    assert capacity(n, 2) == pytest.approx(integrated(n, 1.0), rel=1e-9)


def test_capacity_approaches_its_limit_and_strength_below_one_has_the_rate_of_softmax() -> None:
    assert capacity_limit(100, 2) == pytest.approx(math.sqrt(math.pi) / (2 * math.sqrt(100)))
    gaps = [abs(capacity(n, 2) / capacity_limit(n, 2) - 1) for n in (10, 100, 1000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3
    assert capacity(10**6, 3) == pytest.approx(capacity_limit(10**6, 3), rel=1e-4)
    n = 100_000
    assert n * integrated(n, 0.5) == pytest.approx(1 / (1 - 0.5), rel=0.01)


def test_the_simulated_bias_is_the_exact_one_and_of_twice_the_order_with_twicing() -> None:
    found = biases((0.06, 0.08, 0.1))
    for one in found:
        assert abs(one.plain - one.plain_exact) < 4 * one.error
        assert abs(one.twicing - one.twicing_exact) < 4 * one.error
        assert one.error < one.twicing_exact / 4
    sizes = [one.bandwidth for one in found]
    orders = [order_of([getattr(one, key) for one in found], sizes) for key in ("plain", "twicing")]
    assert orders[0] == pytest.approx(2, abs=0.2)
    assert orders[1] == pytest.approx(4, abs=0.5)
    assert biases((0.06,)) == biases((0.06,))


def test_the_command_lays_measured_models_over_the_theory() -> None:
    result = CliRunner().invoke(
        app, ["theory", "--model", "deit-tw", "--limit", "4", "--json", "--quiet"], catch_exceptions=False
    )
    facts = json.loads(result.stdout)
    assert [row["n"] for row in facts["measured"]] == list(range(7))
    assert facts["measured"][0]["left"] == 1
    known = {"n": 2, "softmax": 1 / 3, "twicing": 8 / 15, "twicing_limit": math.sqrt(math.pi / 8)}
    assert facts["capacities"][1] == pytest.approx(known)
    plain = CliRunner().invoke(app, ["theory"], env={"COLUMNS": "100"})
    assert "capacity falls as 1/n under A and as 1/√n under 2A − A²" in plain.stdout
