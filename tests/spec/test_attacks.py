"""Settings of attacks: what they say of themselves, and how an algorithm that comes later is read."""

from typing import Literal, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from robustbench_twicing.catalog.protocols import protocol
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.attacks import SETTINGS, AnySettings, AttackSettings, UnknownSettings
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import AS_WRITTEN, Eps

read = TypeAdapter(AnySettings).validate_python

MINE = {"algorithm": "mine", "norm": "L2", "tries": 5, "reach": "0.5 eps"}


class MineSettings(AttackSettings):
    """An algorithm that does not ship."""

    algorithm: Literal["mine"] = "mine"
    tries: int
    reach: str

    judged_apart = ("tries",)


def _threat(settings: object, context: object = None) -> AttackThreat:
    rules = Rules(space="pixel", clip=True, labels="true", iterate="best")
    content = {"protocol": "own", "attack": "x", "eps": Eps.parse("1/255"), "rules": rules, "settings": settings}
    return AttackThreat.model_validate(content, context=context)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_class_stands_in_the_table_under_its_own_algorithm(name: str) -> None:
    field = SETTINGS[name].model_fields["algorithm"]
    assert get_args(field.annotation) == (name,)
    assert field.default == name


def test_every_attack_that_ships_says_its_schedule() -> None:
    attacks = protocol("standard").attacks
    assert {name: attacks[name].schedule for name in attacks if not name.endswith(("-l1", "-l2"))} == {
        "fgsm": "1 step",
        "pgd": "20 steps of 0.125 eps",
        "pgd-t": "20 steps of 0.125 eps × 9 targets",
        "spsa": "40 steps × 2·128 probes",
        "mifgsm": "10 steps of 0.1 eps",
        "pna-patchout": "10 steps of 0.1 eps, 66.3 % of the patches in each",
        "tgr": "10 steps of 0.1 eps",
        "att": "10 steps of 0.1 eps",
        "patch-fool": "250 steps of 0.05 eps in 1 patch, other pixels untouched",
        "apgd-ce": "100 steps",
        "apgd-dlr": "100 steps",
        "apgd-t": "100 steps × 9 targets",
        "fab-t": "100 steps × 9 targets",
        "fab-min": "100 steps × 9 targets, the closest",
        "fmn": "100 steps, the closest",
        "deepfool": "50 steps × 9 targets, the first mistake",
        "hop-skip-jump": "40 steps of 100 × √step directions, answers alone",
        "square": "5000 queries",
        "noise": "100 random points",
        "autoattack": "= apgd-ce then apgd-t then fab-t then square",
    }
    assert attacks["pgd"].model_copy(update={"restarts": 3}).schedule == "20 steps of 0.125 eps × 3 restarts"


def test_settings_that_say_nothing_are_shown_key_by_key() -> None:
    assert MineSettings(tries=5, reach="0.5 eps").schedule == "tries 5, reach 0.5 eps"


def test_a_class_added_at_run_time_is_read_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "mine", MineSettings)
    found = _threat(MINE)
    assert found.settings == MineSettings(norm="L2", tries=5, reach="0.5 eps")
    assert AttackThreat.model_validate_json(found.model_dump_json()) == found
    assert found.settings.needs_best == "has tries = 5, but iterate = 'last' judges only the last one"
    with pytest.raises(ValidationError, match="tires"):
        _threat({**MINE, "tires": 5})


def test_an_unknown_algorithm_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        ValidationError, match=r"Unknown algorithm 'pdg'. Did you mean pgd or apgd or pgd-t\? Available: apgd, apgd-t"
    ) as e:
        _threat({"algorithm": "pdg"})
    assert e.value.errors()[0]["loc"] == ("settings", "algorithm")
    for wrong in ({}, {"algorithm": 3}, {"algorithm": ["pgd"]}, "pgd"):
        with pytest.raises(ValidationError):
            _threat(wrong)


@pytest.mark.parametrize("wrap", [False, True], ids=["alone", "in a sequence"])
def test_what_a_run_wrote_is_read_back_though_nobody_knows_the_algorithm(
    wrap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"algorithm": "sequence", "norm": "L2", "members": {"a": MINE}} if wrap else MINE
    with monkeypatch.context() as installed:
        installed.setitem(SETTINGS, "mine", MineSettings)
        written = _threat(content)
    with pytest.raises(ValidationError, match="Unknown algorithm 'mine'"):
        _threat(written.model_dump(mode="json")["settings"])
    again = AttackThreat.model_validate(written.model_dump(mode="json"), context=AS_WRITTEN)
    assert (again.id, again.hash) == (written.id, written.hash)
    (member,) = again.members
    assert isinstance(member.settings, UnknownSettings)
    assert member.settings.schedule == "tries 5, reach 0.5 eps"
    assert hash(again) == hash(AttackThreat.model_validate(written.model_dump(mode="json"), context=AS_WRITTEN))


def test_an_algorithm_that_is_another_one_by_now_is_read_back_as_it_was() -> None:
    old = {"algorithm": "pgd", "norm": "Linf", "steps": 20, "stride": "0.1 eps"}
    assert _threat(old, AS_WRITTEN).settings.schedule == "steps 20, stride 0.1 eps"
    with pytest.raises(ValidationError, match="stride"):
        _threat(old)


def test_a_protocol_may_name_no_unknown_algorithm(tmp_path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'title = "t"\nsource = "s"\ndefault_attacks = []\n[rules]\nspace = "pixel"\nclip = true\nlabels = "true"\n'
        'iterate = "best"\n[attacks.x]\nalgorithm = "aqgd"\n'
    )
    with pytest.raises(UserError, match=r"attacks\.x\.algorithm: Unknown algorithm 'aqgd'\. Did you mean apgd"):
        protocol(str(own))
