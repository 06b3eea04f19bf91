"""The vocabulary: exact numbers, one written form for each value, and mistakes that are explained."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.attacks import FgsmSettings, PgdSettings, SpsaSettings, TorchattacksSettings
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, Threat, pixel_equivalent
from robustbench_twicing.spec.values import Eps, Length, content_hash

PIXEL = Rules(space="pixel", clip=True, labels="true", iterate="best")
NORMALIZED = Rules(space="normalized", clip=False, labels="predicted", iterate="last")

decimals = st.decimals(min_value=0, max_value=1, places=6).map(str)


# --- eps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "canonical"),
    [
        ("1/255", Fraction(1, 255), "1/255"),
        ("8/255", Fraction(8, 255), "8/255"),
        (" 4 / 255 ", Fraction(4, 255), "4/255"),
        ("0.03", Fraction(3, 100), "0.03"),
        (".5", Fraction(1, 2), "0.5"),
        ("5e-1", Fraction(1, 2), "0.5"),
        ("1", Fraction(1), "255/255"),
        ("2/510", Fraction(1, 255), "1/255"),
        ("0.5/255", Fraction(1, 510), "0.5/255"),
        ("1/3", Fraction(1, 3), "85/255"),
        ("1/7", Fraction(1, 7), "1/7"),
        ("0", Fraction(0), "0"),
        ("0/255", Fraction(0), "0"),
        ("+1/255", Fraction(1, 255), "1/255"),
    ],
)
def test_eps_is_read_exactly_and_written_in_one_way(text, value, canonical):
    eps = Eps.parse(text)
    assert eps.value == value
    assert str(eps) == canonical
    assert float(eps) == float(value)


@given(st.integers(0, 255))
def test_k_of_255_comes_back_as_written(k):
    assert str(Eps.parse(f"{k}/255")) == (f"{k}/255" if k else "0")
    assert Eps.parse(f"{k}/255").value == Fraction(k, 255)


@given(decimals | st.builds("{}/{}".format, st.integers(0, 999), st.integers(999, 99_999)))
def test_eps_survives_being_written_and_read(text):
    eps = Eps.parse(text)
    assert Eps.parse(str(eps)) == eps
    assert hash(Eps.parse(str(eps))) == hash(eps)
    assert eps.value == Fraction(text)


@given(st.text(max_size=15))
def test_any_text_is_an_eps_or_a_user_error(text):
    try:
        eps = Eps.parse(text)
    except UserError:
        return
    assert 0 <= eps.value <= 1
    assert Eps.parse(str(eps)) == eps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "larger than the whole pixel range"),
        ("1.01", "larger than the whole pixel range"),
        ("256/255", "larger than the whole pixel range"),
        ("1/0", "divides by zero"),
        ("0/0", "divides by zero"),
        ("-1/255", "negative"),
        ("-0.1", "negative"),
        ("abc", "not a number"),
        ("", "not a number"),
        (".", "not a number"),
        ("nan", "not a number"),
        ("inf", "not a number"),
        ("1/255/2", "not a number"),
        ("1/-255", "not a number"),
        ("1,5", "not a number"),
        ("٣/255", "not a number"),
        ("1e-99", "not a number"),
        ("0." + "1" * 5000, "not a number"),
        ("1/" + "9" * 5000, "not a number"),
    ],
)
def test_a_wrong_eps_is_explained(text, message):
    with pytest.raises(UserError, match=message) as caught:
        Eps.parse(text)
    assert "1/255" in caught.value.hint


def test_a_forgotten_255_is_suggested():
    with pytest.raises(UserError) as caught:
        Eps.parse("8")
    assert caught.value.hint.startswith("Did you mean 8/255?")
    with pytest.raises(UserError) as caught:
        Eps.parse("300")
    assert "Did you mean" not in caught.value.hint


def test_an_l2_eps_may_be_larger_than_one():
    assert Eps.parse("3.5", norm="L2").value == Fraction(7, 2)


def test_eps_is_ordered_and_compared_by_value():
    assert min(Eps.parse("0.5"), Eps.parse("1/255"), Eps.parse("2/255")) == Eps.parse("2/510")
    assert Eps.parse("1/255") != "1/255"
    assert len({Eps.parse("0.2"), Eps.parse("51/255")}) == 1


# --- lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical", "at_8_of_255"),
    [
        ("0.125 eps", "0.125 eps", 1 / 255),
        ("1 eps", "1 eps", 8 / 255),
        ("1/4eps", "0.25 eps", 2 / 255),
        ("1/3 eps", "1/3 eps", 8 / 765),
        ("0.01", "0.01", 0.01),
        ("2/255", "2/255", 2 / 255),
        (" .5 ", "0.5", 0.5),
    ],
)
def test_a_length_is_tied_to_eps_or_fixed(text, canonical, at_8_of_255):
    length = Length.parse(text)
    assert str(length) == canonical
    assert length.at(Eps.parse("8/255")) == at_8_of_255  # exact: rounded once
    assert Length.parse(str(length)) == length


@given(st.decimals(min_value="0.000001", max_value=1000, places=6), st.booleans())
def test_a_length_survives_being_written_and_read(amount, of_eps):
    length = Length.parse(f"{amount} eps" if of_eps else f"{amount}")
    assert Length.parse(str(length)) == length
    assert hash(Length.parse(str(length))) == hash(length)
    assert length.amount == Fraction(amount)


def test_lengths_that_differ_in_the_tenth_digit_differ():
    one, other = Length.parse("0.1234567891 eps"), Length.parse("0.1234567892 eps")
    assert one != other
    assert str(one) != str(other)
    assert Length.parse("0.1") != Length.parse("0.1 eps")


@pytest.mark.parametrize(
    "wrong", ["", "eps", "0", "0 eps", "-1 eps", "1/0", "x eps", "1 eps 2", 0.1, 1, None, True, []]
)
def test_a_wrong_length_is_refused(wrong):
    with pytest.raises(ValueError, match="is not a length; write"):
        Length.parse(wrong)


# --- settings and threats -----------------------------------------------------------------------------------------


def pgd(**changes):
    return PgdSettings(**{"algorithm": "pgd", "steps": 20, "step_size": Length.parse("0.125 eps"), **changes})


def pgd_threat(settings=None, rules=PIXEL, eps="1/255", name="pgd", protocol="p"):
    return AttackThreat(protocol=protocol, attack=name, eps=Eps.parse(eps), rules=rules, settings=settings or pgd())


def test_a_threat_survives_json():
    spsa = SpsaSettings(
        algorithm="spsa", steps=4, samples=8, probe_distance=Length.parse("0.01"), step_size=Length.parse("1/3 eps")
    )
    bridge = TorchattacksSettings(
        algorithm="torchattacks",
        attack="APGD",
        norm="L2",
        arguments={"eps": "1 eps", "steps": 10, "rho": 0.75, "a": True},
    )
    for settings in (pgd(), FgsmSettings(algorithm="fgsm", norm="L2"), spsa, bridge):
        threat = pgd_threat(settings, eps="0.3")
        again = TypeAdapter(Threat).validate_json(threat.model_dump_json())
        assert again == threat
        assert (again.id, again.hash) == (threat.id, threat.hash)
        assert hash(again) == hash(threat)


def test_the_hash_is_that_of_rules_and_settings_alone():
    base = pgd_threat()
    assert pgd_threat(eps="2/255", name="other", protocol="q").hash == base.hash
    assert pgd_threat(pgd(suggested_limit=5)).hash == base.hash
    assert pgd_threat(pgd(step_size=Length.parse("1/8 eps"))).hash == base.hash  # the same length
    assert pgd_threat(pgd(step_size=Length.parse("0.1250001 eps"))).hash != base.hash
    assert pgd_threat(pgd(steps=21)).hash != base.hash
    assert pgd_threat(pgd(norm="L2")).hash != base.hash
    for change in ({"labels": "predicted"}, {"iterate": "last"}, {"clip": False}):
        assert pgd_threat(rules=PIXEL.model_copy(update=change)).hash != base.hash
    assert CleanThreat().hash != base.hash


def test_the_id_names_attack_norm_and_eps():
    assert pgd_threat().id == "pgd-linf-1/255"
    assert pgd_threat(pgd(norm="L2"), eps="0.5").id == "pgd-l2-0.5"


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4))
def test_the_content_hash_ignores_the_order_of_keys(content):
    assert content_hash(content) == content_hash(dict(reversed(content.items())))
    assert len(content_hash(content)) == 12
    assert content_hash(content) != content_hash({**content, "one more": 0})
    assert content_hash(json.loads(json.dumps(content))) == content_hash(content)


def test_values_cannot_be_changed_and_unknown_keys_are_refused():
    settings = pgd()
    with pytest.raises(ValidationError, match="frozen"):
        settings.steps = 3
    with pytest.raises(ValidationError, match="Extra inputs"):
        pgd(setps=3)


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"restarts": 0}, {"step_size": 0.1}, {"norm": "L1"}, {"steps": "many"}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        pgd(**change)


def test_spsa_knows_linf_only():
    with pytest.raises(ValidationError, match="Linf"):
        SpsaSettings(
            algorithm="spsa",
            norm="L2",
            steps=1,
            samples=1,
            probe_distance=Length.parse("1 eps"),
            step_size=Length.parse("1 eps"),
        )


def test_clipping_needs_pixels():
    with pytest.raises(ValidationError, match="clip = true needs space = 'pixel'"):
        Rules(space="normalized", clip=True, labels="true", iterate="best")
    assert pgd_threat().bounds == (0.0, 1.0)
    assert pgd_threat(rules=NORMALIZED).bounds is None


def test_eps_in_normalised_space_is_smaller_in_pixels():
    """The authors' 1/255 is 0.224 to 0.229 of 1/255 in pixels, with ImageNet's standard deviations."""
    imagenet = (0.229, 0.224, 0.225)
    assert pixel_equivalent(pgd_threat(rules=NORMALIZED), imagenet) == pytest.approx([s / 255 for s in imagenet])
    assert pixel_equivalent(pgd_threat(), imagenet) == (1 / 255,) * 3


def test_estimates_of_the_cost():
    spsa = SpsaSettings(
        algorithm="spsa", steps=40, samples=128, probe_distance=Length.parse("1 eps"), step_size=Length.parse("1 eps")
    )
    assert spsa.evaluations == 40 * 257  # an iterate is judged after each step
    assert pgd(restarts=3).evaluations == 63
    assert FgsmSettings(algorithm="fgsm").evaluations == 2


def test_a_recipe_has_a_readable_id():
    assert Recipe(resize=256, crop=224).id == "resize256-bicubic-crop224"
    assert Recipe(crop=224).id == "crop224"
    assert Recipe().id == "none"
