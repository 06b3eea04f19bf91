"""One experiment through three doors: the command line, Python and a plan file mean the same, and refuse the same."""

import json
from collections.abc import Callable
from inspect import Parameter, signature, unwrap
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustbench_twicing import api, evaluate
from robustbench_twicing.catalog.config import settings as configured
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.options import EXPERIMENT, MEANS
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.experiment import Experiment
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Plan


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("val").mkdir()


class _StatedError(Exception):
    """What was understood, in place of carrying it out."""


def _stop(stated: Stated, *rest: Any) -> None:
    raise _StatedError(stated)


def _caught(step: Callable[[], Any]) -> Stated:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "carry_out", _stop)
        try:
            step()
        except _StatedError as found:
            return found.args[0]
    raise AssertionError("nothing was to be carried out")


def by_command(*words: str) -> Stated:
    return _caught(lambda: CliRunner().invoke(app, words, catch_exceptions=False))


def by_python(**said: Any) -> Stated:
    """Also what no annotation allows: a program hands over what it has, and the test run's type check is in the way."""
    return _caught(lambda: unwrap(evaluate)(**said))


def by_plan(text: str) -> Stated:
    Path("p.toml").write_text(text)
    read = read_plan("p.toml", configured())
    return Stated(read.experiment, read.means, read.plan)


def refused_by_command(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def refused_by_python(**said: Any) -> str:
    with pytest.raises(UserError) as refusal:
        by_python(**said)
    return str(refusal.value)


def refused_by_plan(text: str) -> str:
    with pytest.raises(UserError) as refusal:
        by_plan(text)
    return str(refusal.value)


def ids(plan: Plan) -> list[str]:
    return [threat.id for threat in plan.threats]


# --- one set of words ------------------------------------------------------------------------------------------------


def test_evaluates_arguments_are_the_fields_of_experiment_and_means() -> None:
    """The rows of attacks and suites are flat in Python: their fields stand in the array's place."""
    flat = {"attacks", "eps", "suites", "corruptions", "severities"}
    arguments = signature(evaluate).parameters
    assert set(arguments) == set(Experiment.model_fields) | flat | set(Means.model_fields) | {"begin"}
    for form in (Experiment, Means):
        for name, field in form.model_fields.items():
            given, usual = arguments[name].default, field.get_default(call_default_factory=True)
            assert given in (None, Parameter.empty) or given == usual, name


def test_the_command_line_has_an_option_for_every_argument() -> None:
    arguments = set(signature(evaluate).parameters) - {"begin", "checkpoints"}  # --model NAME=CHECKPOINT says those
    assert set(EXPERIMENT) | set(MEANS) == arguments


# --- what two doors did differently ----------------------------------------------------------------------------------

ATTACK_AND_SUITE = """
models = ["deit"]
data = "imagenet"
[[attacks]]
names = ["fgsm"]
[[suites]]
name = "{suite}"
{part}
[directories]
imagenet = "val"
"""


def _three(suite: str, *, part: dict[str, Any] | None = None, **more: Any) -> list[Stated]:
    """Attacks together with a suite."""
    part = part or {}
    words = [f"--corruption={name}" for name in part.get("corruptions", ())]
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in part.items())
    head = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return [
        by_command(
            *("attack", "-m", "deit", "-a", "fgsm", "--suite", suite, *words, "--data-dir", "imagenet=val"),
            *(f"--{key}={value}" for key, value in more.items()),
        ),
        by_python(models="deit", attacks="fgsm", suites=suite, directories={"imagenet": "val"}, **part, **more),
        by_plan(head + ATTACK_AND_SUITE.format(suite=suite, part=lines).replace('data = "imagenet"\n', "")),
    ]


def test_a_suite_beside_an_attack_is_read_as_the_suite_declares() -> None:
    """ImageNet-C's files are not resized again because the clean images are attacked as well."""
    for stated in _three("imagenet-c", part={"corruptions": ["fog"]}):
        assert stated.plan.recipe is None
        assert ids(stated.plan)[:3] == ["clean", "fgsm-linf-1/255", "imagenet-c:fog-1"]
    for stated in _three("imagenet-c", part={"corruptions": ["fog"]}, recipe="model"):
        assert stated.plan.recipe == "model"


def test_an_attack_beside_a_masked_suite_has_its_plain_clean_run() -> None:
    plans = [stated.plan for stated in _three("imagenet-a")]
    assert {tuple(ids(plan)) for plan in plans} == {("clean", "clean[imagenet-a]", "fgsm-linf-1/255", "imagenet-a")}
    assert len({plan.hash for plan in plans}) == 1


def test_a_protocol_with_a_recipe_of_its_own_is_refused_beside_a_suite_at_every_door() -> None:
    says = "Protocol 'paper' has a recipe of its own, and so have the suites."
    words = ["attack", "-m", "deit", "-a", "fgsm", "--suite", "imagenet-a", "--protocol", "paper"]
    assert "--suite: " + says in refused_by_command(*words)
    asked = {"models": "deit", "attacks": ["fgsm"], "suites": ["imagenet-a"], "protocol": "paper"}
    assert "suites=…: " + says in refused_by_python(**asked)
    text = 'protocol = "paper"\n' + ATTACK_AND_SUITE.format(suite="imagenet-a", part="")
    assert "line 7: suites: " + says in refused_by_plan(text)


SAID = [
    ("engine", "torchattack", "Unknown engine 'torchattack'. Did you mean torchattacks?"),
    ("precision", "float8", "Unknown precision 'float8'."),
    ("weights", "emaa", "Unknown weights 'emaa'. Did you mean ema?"),
    ("recipe", "papre", "Unknown recipe 'papre'. Did you mean paper?"),
    ("protocol", "standrd", "Unknown protocol 'standrd'. Did you mean standard?"),
    ("data", "digit", "Unknown data set 'digit'. Did you mean digits"),
    ("source_model", "diet", "Unknown model 'diet'. Did you mean deit"),
    ("seed", -1, "Input should be greater than or equal to 0 (got -1)"),
    ("seed", 2**63, f"Input should be less than {2**63} (got {2**63})"),
    ("limit", 0, "Input should be greater than or equal to 1 (got 0)"),
    ("recipe", "none", "The images of digits are used as they are."),
]


@pytest.mark.parametrize(("key", "value", "says"), SAID)
def test_a_wrong_word_is_refused_in_each_doors_own_spelling(key: str, value: Any, says: str) -> None:
    option = f"--{key.replace('_', '-')}"
    assert f"{option}: {says}" in refused_by_command("attack", "-m", "deit", "-a", "fgsm", f"{option}={value}")
    assert f"{key}=…: {says}" in refused_by_python(models="deit", attacks="fgsm", **{key: value}).replace("\n", " ")
    toml = f'models = ["deit"]\n{key} = {json.dumps(value)}\n[[attacks]]\n'
    assert f"p.toml, line 2: {key}: {says}" in refused_by_plan(toml)


MEANS_SAID = [
    ("attention_path", "sideways", "Unknown attention path 'sideways'."),
    ("batch_size", 0, "Input should be greater than or equal to 1 (got 0)"),
]


@pytest.mark.parametrize(("key", "value", "says"), MEANS_SAID)
def test_wrong_means_are_refused_in_each_doors_own_spelling(key: str, value: Any, says: str) -> None:
    option = f"--{key.replace('_', '-')}"
    for words in (["attack", "-m", "deit"], ["corrupt", "-m", "deit"], ["run", "nightly"]):
        assert f"{option}: {says}" in refused_by_command(*words, f"{option}={value}")
    assert f"{key}=…: {says}" in refused_by_python(models="deit", **{key: value}).replace("\n", " ")
    assert f"line 3: means.{key}: {says}" in refused_by_plan(
        f'models = ["deit"]\n[means]\n{key} = {json.dumps(value)}\n'
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol", "paper"),
        ("engine", "torchattacks"),
        ("worst_case", True),
        ("precision", "bfloat16"),
        ("eight_bit", True),
        ("source_model", "deit-tw"),
    ],
)
def test_what_is_about_attacks_is_refused_where_nothing_is_attacked(key: str, value: Any) -> None:
    says = "Nothing is attacked, so this means nothing."
    assert f"{key}=…: {says}" in refused_by_python(models="deit", suites="digits-c", **{key: value})
    toml = f'models = ["deit"]\n{key} = {json.dumps(value)}\n[[suites]]\nname = "digits-c"\n'
    assert f"line 2: {key}: {says}" in refused_by_plan(toml)


def test_sizes_without_attacks_and_parts_without_suites_are_refused() -> None:
    nothing = "Nothing is attacked, so this means nothing."
    assert f"eps=…: {nothing}" in refused_by_python(models="deit", suites="digits-c", eps="1/255")
    for key, value, option in (("corruptions", "fog", "--corruption"), ("severities", 3, "--severity")):
        says = "No suite is named, so this means nothing."
        assert f"{key}=…: {says}" in refused_by_python(models="deit", attacks="fgsm", **{key: value})
        assert f"{option}: {says}" in refused_by_command("attack", "-m", "deit", f"{option}={value}")


@pytest.mark.parametrize("key", ["eps", "attacks", "models"])
def test_an_empty_list_is_refused_by_name(key: str) -> None:
    said = refused_by_python(**{"models": "deit", "attacks": "fgsm", key: []})
    assert said.startswith((f"{key}=…: Nothing is named here.", f"{key}=…: No model is named."))


def test_several_mistakes_are_named_at_once_in_each_doors_own_spelling() -> None:
    words = ["-m", "diet", "-a", "pdg", "--eps", "8", "--suite", "digits-c", "-c", "fogg", "--severity", "6"]
    said = refused_by_command("attack", *words, "--seed=-1")
    for spelled in ("--model", "--attack", "--eps", "--corruption", "--severity", "--seed"):
        assert f" {spelled}: " in said
    assert "6 mistakes" in said
    asked = {"attacks": ["pdg"], "eps": ["8"], "suites": ["digits-c"], "corruptions": ["fogg"], "severities": [6]}
    said = refused_by_python(models="diet", **asked, seed=-1, batch_size=0)
    for name in (*asked, "models", "seed", "batch_size"):
        assert f"  {name}=…: " in said.replace("suites=…", "  suites=…: ") or name == "suites"
    assert "7 mistakes" in said


# --- Python's own words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "text"),
    [(8 / 255, "8/255"), (0.03, "0.03"), (0, "0"), (1 / 3, "85/255"), ("4/255", "4/255"), (0.5, "0.5"), (1, "255/255")],
)
def test_an_eps_that_is_a_number_is_the_fraction_that_it_is_meant_as(said: Any, text: str) -> None:
    (_, threat) = by_python(models="deit", attacks="fgsm", eps=said).plan.threats
    assert str(threat.eps) == text


def test_numbers_of_numpy_and_single_names_are_what_they_are_meant_as() -> None:
    numpy = pytest.importorskip("numpy")
    plain = by_python(models="deit", attacks=["fgsm"], eps=["8/255"], limit=3, seed=2)
    other = by_python(
        models=["deit"], attacks="fgsm", eps=numpy.float32(8 / 255), limit=numpy.int64(3), seed=numpy.uint8(2)
    )
    assert plain == other
    assert by_python(models="deit", attacks="fgsm", eps=numpy.array([1, 8]) / 255).plan.threats[2].id[-5:] == "8/255"


@pytest.mark.parametrize("eps", [True, "abc", float("nan"), float("inf"), 8, object(), {"eps": 1}, None.__class__])
def test_an_eps_that_is_none_is_refused(eps: Any) -> None:
    assert "eps=…: " in refused_by_python(models="deit", attacks="fgsm", eps=eps)
