"""Protocols: what ships, what a user's own file may hold, and how an attack's name becomes a threat."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torchattacks

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.protocols import attack_threat, protocol, protocol_names
from robustbench_twicing.catalog.resolve import resolve
from robustbench_twicing.catalog.torchattacks import as_torchattacks, torchattacks_settings, torchattacks_table
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.catalog import entry_page
from robustbench_twicing.report.page import Line
from robustbench_twicing.spec.attacks import (
    SETTINGS,
    AttackSettings,
    PgdSettings,
    PythonSettings,
    SpsaSettings,
    TorchattacksSettings,
)
from robustbench_twicing.spec.experiment import AttackRow, Experiment
from robustbench_twicing.spec.protocol import Protocol, Rules
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps, Length

GOLDEN = Path(__file__).parent.parent / "golden" / "protocol_hashes.json"
ONE = Eps.parse("1/255")

OWN = """
title = "mine"
source = "me"
default_attacks = ["pgd"]
[rules]
space = "pixel"
clip = true
labels = "true"
iterate = "best"
[attacks.pgd]
algorithm = "pgd"
steps = 7
step_size = "0.5 eps"
"""


@pytest.fixture
def own(tmp_path):
    def write(text):
        path = tmp_path / "own.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# --- what ships ---------------------------------------------------------------------------------------------------


def test_the_hashes_of_shipped_protocols_are_as_recorded():
    """A changed hash means that new results cannot stand beside old ones. If that is meant, say so in CHANGELOG.md and
    write the new hashes into tests/golden/protocol_hashes.json."""
    found = {
        name: {attack: attack_threat(rules, attack, ONE).hash for attack in rules.attacks}
        for name, rules in ((name, protocol(name)) for name in protocol_names())
    }
    rules = protocol("standard").rules
    found["torchattacks"] = {
        name: AttackThreat(protocol="", attack=name, eps=ONE, rules=rules, settings=torchattacks_settings(name)).hash
        for name in torchattacks_table().attacks
    }
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_standard_is_the_worst_case_in_pixels():
    standard = protocol("standard")
    assert standard.rules.model_dump() == {"space": "pixel", "clip": True, "labels": "true", "iterate": "best"}
    assert standard.default_attacks == ("fgsm", "pgd", "spsa")
    pgd, spsa = standard.attacks["pgd"], standard.attacks["spsa"]
    assert isinstance(pgd, PgdSettings)
    # 2.5 eps / 20: the walk is longer than the ball is wide.
    assert (pgd.steps, pgd.step_size.at(ONE) * 20, pgd.random_start) == (20, pytest.approx(2.5 / 255), True)
    assert isinstance(spsa, SpsaSettings)
    assert (spsa.steps, spsa.samples, spsa.probe_center, spsa.suggested_limit) == (40, 128, "current", 10)
    assert spsa.step_size.of_eps
    assert spsa.probe_distance.of_eps


def test_standard_has_the_members_of_autoattack():
    """fra31/auto-attack, autoattack.py, version `standard`: 100 steps, one restart, nine targets, 5,000 queries."""
    attacks = protocol("standard").attacks
    for end, norm in (("", "Linf"), ("-l2", "L2")):
        ce, targeted, fab, square = (attacks[name + end] for name in ("apgd-ce", "apgd-t", "fab-t", "square"))
        assert (ce.loss, ce.steps, ce.restarts) == ("ce", 100, 1)
        assert (targeted.steps, targeted.restarts, targeted.targets) == (100, 1, 9)
        assert (fab.algorithm, fab.steps, fab.restarts, fab.targets) == ("fab-t", 100, 1, 9)
        assert (fab.alpha_max, fab.eta, fab.beta, fab.keeps) == (0.1, 1.05, 0.9, "first")
        assert (square.queries, square.p_init) == (5000, 0.8)
        assert {each.norm for each in (ce, targeted, fab, square)} == {norm}


def test_an_l2_eps_may_exceed_one_but_not_beside_an_linf_attack():
    def threats(*names: str, eps: str = "2.5"):
        return resolve(Experiment(models=("deit",), attacks=(AttackRow(names=names, eps=(eps,)),))).threats

    _, threat = threats("pgd-l2")
    assert (threat.settings.norm, float(threat.eps)) == ("L2", 2.5)
    with pytest.raises(UserError, match="larger than the whole pixel range"):
        threats("pgd-l2", "pgd")
    with pytest.raises(UserError, match="is not a number"):
        threats("pgd-l2", eps="much")


def test_a_name_means_the_protocols_own_attack_before_torchattacks():
    standard = protocol("standard")
    assert attack_threat(standard, "square", ONE).settings.algorithm == "square"
    assert attack_threat(standard, "MIFGSM", ONE).settings.algorithm == "mifgsm"
    there = attack_threat(standard, "square", ONE, engine="torchattacks").settings
    assert (there.attack, there.arguments["n_queries"]) == ("Square", 5000)


def test_paper_is_what_the_authors_group_runs():
    paper = protocol("paper")
    assert paper.rules.model_dump() == {"space": "normalized", "clip": False, "labels": "predicted", "iterate": "last"}
    assert paper.recipe == "paper"
    pgd, spsa = paper.attacks["pgd"], paper.attacks["spsa"]
    assert isinstance(pgd, PgdSettings)
    assert (pgd.steps, pgd.step_size, pgd.random_start, pgd.restarts) == (20, Length.parse("0.15 eps"), True, 1)
    assert isinstance(spsa, SpsaSettings)
    assert (spsa.steps, spsa.samples, spsa.random_start, spsa.probe_center) == (40, 128, True, "twice_clean")
    assert (spsa.step_size, spsa.probe_distance) == (Length.parse("0.01"), Length.parse("0.01"))


def test_two_protocols_share_no_hash():
    hashes = [
        attack_threat(protocol(name), attack, ONE).hash
        for name in protocol_names()
        for attack in protocol(name).attacks
    ]
    assert len(set(hashes)) == len(hashes)


# --- a user's own file --------------------------------------------------------------------------------------------


def test_an_own_file_is_a_protocol_named_after_it(own):
    mine = protocol(own(OWN))
    assert mine.name == "own"
    threat = attack_threat(mine, "pgd", Eps.parse("8/255"))
    assert (threat.id, threat.protocol, threat.settings.steps) == ("pgd-linf-8/255", "own", 7)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (('title = "mine"', 'titel = "mine"'), "titel"),
        (("steps = 7", "setps = 7"), "setps"),
        (("steps = 7", 'steps = "seven"'), "steps"),
        (("steps = 7", "steps = 0"), "steps"),
        (('algorithm = "pgd"', 'algorithm = "pdg"'), "pdg"),
        (('algorithm = "pgd"\n', ""), "algorithm"),
        (('step_size = "0.5 eps"', "step_size = 0.5"), "is not a length"),
        (('step_size = "0.5 eps"', 'step_size = "half eps"'), "is not a length"),
        (('space = "pixel"', 'space = "pixels"'), "space"),
        (('space = "pixel"', 'space = "normalized"'), "clip = true needs space"),
        (('default_attacks = ["pgd"]', 'default_attacks = ["fgsm"]'), "fgsm"),
        (("steps = 7", 'steps = 7\nnorm = "L3"'), "norm"),
        (('iterate = "best"', "iterate = 1"), "iterate"),
        (("clip = true", "clip = 'maybe'"), "clip"),
    ],
)
def test_a_mistake_in_a_file_is_named(own, change, word):
    before, after = change
    assert before in OWN
    path = own(OWN.replace(before, after))
    with pytest.raises(UserError, match="mistake") as caught:
        protocol(path)
    assert word in caught.value.message
    assert path in caught.value.message
    assert "attacks/README.md" in caught.value.hint


def test_all_mistakes_are_named_at_once(own):
    with pytest.raises(UserError, match=r"has 3 mistake\(s\)") as caught:
        protocol(own(OWN.replace("steps = 7", "setps = 7").replace('source = "me"', "")))
    assert all(word in caught.value.message for word in ("setps", "steps", "source"))


def test_restarts_that_nobody_judges_are_refused(own):
    last = OWN.replace('iterate = "best"', 'iterate = "last"')
    with pytest.raises(UserError, match="restarts = 5, but iterate = 'last' judges only the last one"):
        protocol(own(last.replace("steps = 7", "steps = 7\nrestarts = 5")))
    with pytest.raises(UserError, match="targets = 3, but"):
        protocol(own(last + '[attacks.apgd-t]\nalgorithm = "apgd-t"\nsteps = 7\ntargets = 3\n'))
    with pytest.raises(UserError, match="trials = 2, but"):
        protocol(own(last + '[attacks.noise]\nalgorithm = "noise"\ntrials = 2\n'))


def test_a_file_that_is_no_toml_is_located(own):
    with pytest.raises(UserError, match=r"not valid TOML.*line"):
        protocol(own(OWN + "\nsteps == 3"))


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="No file"):
        protocol(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="Unknown protocol 'standart'") as caught:
        protocol("standart")
    assert "Did you mean standard?" in caught.value.hint


def test_the_readme_explains_every_key_and_no_other():
    text = (definitions("attacks") / "README.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `\[?\[?(\w+)", text, flags=re.MULTILINE))
    kinds = (Protocol, Rules, *(kind for kind in SETTINGS.values() if kind is not PythonSettings))
    assert explained == {field for kind in kinds for field in kind.model_fields}


def test_the_examples_of_the_documentation_are_protocols(own):
    page = definitions("attacks").parent / "docs" / "add-an-attack.md"
    files = page.read_text("utf-8").split("## A new algorithm")[0]  # whose steps tests/test_add_an_attack.py follows
    blocks = [block.replace("\n    ", "\n") for block in re.findall(r"(?:\n(?:    .*)?)+", files)]
    first, second = (block for block in blocks if "[attacks." in block)
    pgd = attack_threat(protocol(own(first)), "pgd", ONE).settings
    assert (pgd.steps, pgd.restarts, pgd.step_size.at(ONE) * 100) == (100, 5, pytest.approx(2.5 / 255))
    apgd = attack_threat(protocol(own(OWN + second)), "apgd-100", ONE).settings
    assert (apgd.attack, apgd.arguments["steps"], apgd.arguments["n_restarts"]) == ("APGD", 100, 5)


# --- attacks of torchattacks --------------------------------------------------------------------------------------


def test_every_attack_of_torchattacks_is_in_the_table_or_refused():
    table = torchattacks_table()
    assert {*table.attacks, *table.refused} == {name.lower() for name in torchattacks.__all__}
    assert not {*table.attacks} & {*table.refused}


def test_the_catalog_says_why_an_attack_of_torchattacks_cannot_be_run():
    assert entry_page("cw").facts["refused"] == torchattacks_table().refused["cw"]
    for name, why in torchattacks_table().refused.items():
        said = "\n".join(part.text for part in entry_page(name).parts if isinstance(part, Line))
        assert why in said or name in protocol("standard").attacks


@pytest.mark.parametrize("name", torchattacks_table().attacks)
def test_the_table_holds_every_argument_of_the_installed_torchattacks(name):
    """At torchattacks' defaults, and lengths in the ratio to eps that they have there."""
    settings = torchattacks_settings(name)
    parameters = inspect.signature(getattr(torchattacks, settings.attack)).parameters
    filled_in = {"model", "norm", "seed", "verbose"}
    assert {*settings.arguments} == {*parameters} - filled_in
    eps = parameters.get("eps", parameters.get("max_epsilon")).default
    for argument, value in settings.arguments.items():
        default = parameters[argument].default
        if isinstance(value, str) and value.endswith("eps"):
            assert float(Length.parse(value).amount) * eps == pytest.approx(default)
        else:
            assert value == default
            assert type(value) is type(default)


@pytest.mark.parametrize("written", ["apgd", "APGD", "Apgd"])
def test_an_attack_of_torchattacks_goes_by_its_name_in_any_case(written):
    threat = attack_threat(protocol("standard"), written, ONE)
    assert threat.id == "apgd-linf-1/255"
    assert isinstance(threat.settings, TorchattacksSettings)
    assert threat.settings.attack == "APGD"
    assert threat.settings.arguments["eps"] == "1 eps"
    assert attack_threat(protocol("standard"), "FGSM", ONE).settings.algorithm == "fgsm"


def test_the_norm_is_the_attacks_own():
    assert attack_threat(protocol("standard"), "pgdl2", ONE).settings.norm == "L2"
    assert torchattacks_settings("square", "L2").norm == "L2"
    with pytest.raises(UserError, match="MIFGSM cannot bound the L2 norm"):
        torchattacks_settings("mifgsm", "L2")


@pytest.mark.parametrize("name", [*torchattacks_table().refused])
def test_attacks_without_an_eps_are_refused_with_the_reason(name):
    with pytest.raises(UserError, match="cannot be run at an eps"):
        torchattacks_settings(name)


def test_an_unknown_attack_gets_the_nearest_names():
    with pytest.raises(UserError, match="Unknown attack 'mifgms'") as caught:
        attack_threat(protocol("standard"), "mifgms", ONE)
    assert "mifgsm" in caught.value.hint
    assert "pgd" in caught.value.hint
    with pytest.raises(UserError, match="it looks for the smallest change"):
        attack_threat(protocol("standard"), "CW", ONE)


def test_a_file_may_change_some_arguments_and_gets_the_rest(own):
    section = '[attacks.long]\nalgorithm = "torchattacks"\nattack = "apgd"\narguments = {{ {} }}\n'
    mine = protocol(own(OWN + section.format("steps = 100")))
    settings = attack_threat(mine, "long", ONE).settings
    assert settings.attack == "APGD"
    assert settings.arguments == {**torchattacks_settings("apgd").arguments, "steps": 100}
    with pytest.raises(UserError, match="Unknown argument of APGD 'step'"):
        protocol(own(OWN + section.format("step = 100")))
    with pytest.raises(UserError, match="Argument steps of APGD is 'many'"):
        protocol(own(OWN + section.format("steps = 'many'")))
    with pytest.raises(UserError, match="cannot be run at an eps"):
        protocol(own(OWN + section.format("").replace("apgd", "CW")))


def test_a_protocols_own_attacks_are_translated_or_refused_by_name():
    standard = protocol("standard")
    threat = attack_threat(standard, "pgd", ONE, engine="torchattacks")
    assert threat.settings.attack == "PGD"
    assert threat.settings.arguments == {"eps": "1 eps", "alpha": "0.125 eps", "steps": 20, "random_start": True}
    assert threat.hash != attack_threat(standard, "pgd", ONE).hash
    spsa = attack_threat(standard, "spsa", ONE, engine="torchattacks").settings
    assert spsa.arguments["nb_iter"] == 40
    assert spsa.arguments["nb_sample"] == 128
    assert spsa.suggested_limit == 10
    sequence = attack_threat(standard, "autoattack", ONE, engine="torchattacks")
    assert [member.settings.attack for member in sequence.members] == ["APGD", "APGDT", "FAB", "Square"]
    for attack in standard.attacks.keys() - {
        "noise",
        "noise-l2",
        "autoattack",
        "autoattack-l2",
        "fab-min",
        "fab-min-l2",
        "att",
        "patch-fool",
        "fmn",
        "fmn-l2",
        "ddn-l2",
        "deepfool",
        "deepfool-l2",
        "hop-skip-jump",
        "hop-skip-jump-l2",
        "apgd-ce-l1",
        "apgd-t-l1",
        "pgd-t",
        "pgd-t-l2",
        "pna-patchout",
        "tgr",
    }:
        settings = attack_threat(standard, attack, ONE, engine="torchattacks").settings
        assert settings.norm == standard.attacks[attack].norm
        parameters = inspect.signature(getattr(torchattacks, settings.attack)).parameters
        assert {*settings.arguments} == {*parameters} - {"model", "norm", "seed", "verbose"}
    apgd_t = attack_threat(standard, "apgd-t", ONE, engine="torchattacks").settings
    assert (apgd_t.attack, apgd_t.arguments["n_classes"]) == ("APGDT", 10)  # nine targets
    with pytest.raises(UserError, match="no counterpart of the algorithm 'noise'"):
        attack_threat(standard, "noise", ONE, engine="torchattacks")
    with pytest.raises(UserError, match='cannot be given random_start = true and probe_center = "twice_clean"'):
        as_torchattacks(protocol("paper").attacks["spsa"])
    with pytest.raises(UserError, match="cannot be given restarts = 3"):
        as_torchattacks(standard.attacks["pgd"].model_copy(update={"restarts": 3}))
    with pytest.raises(UserError, match='cannot be given norm = "L2"'):
        as_torchattacks(standard.attacks["fgsm"].model_copy(update={"norm": "L2"}))


def test_torchattacks_gets_no_attack_and_no_setting_that_nobody_translated():
    class NewSettings(AttackSettings):
        algorithm: Literal["new"] = "new"
        steps: int = 5

    class LongerPgdSettings(PgdSettings):
        warmup: int = 0

    with pytest.raises(UserError, match="no counterpart of the algorithm 'new'"):
        as_torchattacks(NewSettings())
    longer = LongerPgdSettings(steps=7, step_size=Length.parse("0.5 eps"), warmup=3)
    with pytest.raises(UserError, match="PGD cannot be given warmup = 3"):
        as_torchattacks(longer)
    assert as_torchattacks(longer.model_copy(update={"warmup": 0})).arguments["steps"] == 7


def test_names_are_found_without_torch():
    code = (
        "import sys; from robustbench_twicing.catalog.protocols import *;"
        "from robustbench_twicing.spec.values import Eps;"
        "attack_threat(protocol('standard'), 'apgd', Eps.parse('1/255'));"
        "assert not {'torch', 'torchattacks'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
