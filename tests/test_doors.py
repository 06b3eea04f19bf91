"""One experiment through three doors: the command line, Python and a plan file mean the same, and refuse the same."""

import json
import tempfile
from collections.abc import Callable
from inspect import Parameter, signature, unwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from robustbench_twicing import api, evaluate, load_run
from robustbench_twicing.catalog.config import settings as configured
from robustbench_twicing.catalog.mistakes import Mistake, MistakesError
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.resolve import Stated, resolve
from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.commands import loaded
from robustbench_twicing.cli.options import EXPERIMENT, MEANS
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.experiment import Experiment, TextExperiment
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.suite import Part
from tests.imagenet_trees import LabelReader, build_tree

ROOT = Path(__file__).resolve().parents[1]


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

ONLY_PYTHON = {"begin", "image_size", "versions"}
"""Arguments about what only Python can pass: who follows the progress, and modules in memory."""
OF_TEXT = {"text", "window"}
"""What only an experiment on a text says. At the command line those are options of `lm`."""


def test_evaluates_arguments_are_the_fields_of_experiment_and_means() -> None:
    """The rows of attacks and suites are flat in Python: their fields stand in the array's place."""
    flat = {"attacks", "eps", "suites", "corruptions", "severities"}
    arguments = signature(evaluate).parameters
    assert set(arguments) == set(Experiment.model_fields) | flat | set(Means.model_fields) | ONLY_PYTHON | OF_TEXT
    assert set(TextExperiment.model_fields) <= set(arguments)
    for form in (Experiment, Means):
        for name, field in form.model_fields.items():
            given, usual = arguments[name].default, field.get_default(call_default_factory=True)
            assert given in (None, Parameter.empty) or given == usual, name


def test_the_command_line_has_an_option_for_every_argument() -> None:
    arguments = (
        set(signature(evaluate).parameters) - ONLY_PYTHON - {"checkpoints"}
    )  # --model NAME=CHECKPOINT says those
    assert set(EXPERIMENT) | set(MEANS) == arguments - OF_TEXT
    assert {parameter.name for parameter in loaded("lm").params} >= OF_TEXT


@pytest.mark.parametrize("command", ["attack", "corrupt", "run", "compare", "verify", "data check-generated"])
def test_every_command_that_writes_a_run_computes_it_anew_on_demand(command: str) -> None:
    name, *inner = command.split()
    found = loaded(name)
    for word in inner:
        found = found.commands[word]
    assert "--fresh" in [option for parameter in found.params for option in parameter.opts]


# --- drawn experiments -----------------------------------------------------------------------------------------------

ROWS = ("attacks", "eps", "suites", "corruptions", "severities")
OPTIONS = {"models": "model", "attacks": "attack", "suites": "suite", "corruptions": "corruption"}
OPTIONS |= {"severities": "severity", "compiles": "compile", "directories": "data-dir"}


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3)


def one(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


ON_DIGITS = {
    "models": some("deit", "deit-tw", "deit-tw@mine=last.pth"),
    "suites": st.just(["digits-c"]),
    "data": st.just("digits"),
}
ON_IMAGENET = {
    "models": some("deit", "deit-tw=last.pth", "resnet18.a1_in1k"),
    "suites": some("imagenet-a", "imagenet-c", "imagenet-c-generated"),
    "data": st.just("imagenet"),
    "recipe": one("model", "paper"),
    "directories": st.dictionaries(one("imagenet", "imagenet-a"), st.just("val"), min_size=1),
}
ABOUT_ATTACKS = {
    "attacks": some("fgsm", "pgd", "apgd-ce"),
    "eps": some("1/255", "8/255", "0.02", "0.5"),
    "protocol": one("standard", "mine.toml"),
    "engine": st.just("own"),
    "worst_case": st.just(True),
    "precision": one("bfloat16", "tf32"),
    "eot": one(2, 20),
    "eight_bit": st.just(True),
    "source_model": st.just("resnet18"),
}
THE_REST = {
    "corruptions": some("fog", "common", "frost"),
    "severities": some(1, 3, 5),
    "limit": one(1, 7),
    "seed": one(0, 5, 2**63 - 1),
    "weights": one("ema", "both"),
    "resample_pos_embed": st.just(True),
    "device": one("cpu", "cuda:7"),
    "batch_size": st.just(3),
    "preflight": st.just(False),
    "attention_path": st.just("fused"),
    "compiles": st.just(True),
    "frost_dir": st.just("drawn"),
    "keep_images": st.just(2),
    "executor": one("local", "ray"),
    "address": one("auto", "head:6379"),
    "gpus_per_model": st.just(0.5),
    "workers": st.just(3),
    "fresh": st.just(True),
}
WRONG = {
    "models": ["diet", "deit"],
    "attacks": ["fgsm", "pdg"],
    "eps": ["1/255", "2", "x"],
    "protocol": "papre",
    "engine": "other",
    "precision": "float8",
    "source_model": "diet",
    "suites": ["digits_c"],
    "data": "imagnet",
    "corruptions": ["fogg"],
    "severities": [6],
    "limit": 0,
    "seed": -1,
    "weights": "emaa",
    "recipe": "papre",
    "attention_path": "sideways",
    "batch_size": 0,
    "directories": {"imagnet": "val"},
}


@st.composite
def experiments(draw: st.DrawFn, about_attacks: bool, wrong: bool) -> dict[str, Any]:
    """A few words out of all as `evaluate`'s arguments, with slips in them where `wrong` is asked for."""
    words = {**draw(one(ON_DIGITS, ON_IMAGENET)), **THE_REST, **(ABOUT_ATTACKS if about_attacks else {})}
    needed = ["models", "eps" if about_attacks else "suites"]
    said = {word: draw(words[word]) for word in [*needed, *draw(st.lists(one(*words), max_size=6))]}
    if not said.get("suites"):
        said = {word: value for word, value in said.items() if word not in ("corruptions", "severities")}
    for word in draw(st.lists(one(*(words.keys() & WRONG)), min_size=1, max_size=3)) if wrong else ():
        said[word] = WRONG[word]
    return said


def command_of(said: dict[str, Any]) -> list[str]:
    words = ["attack" if "eps" in said else "corrupt"]
    for key, value in said.items():
        option = f"--{OPTIONS.get(key, key.replace('_', '-'))}"
        if isinstance(value, dict):
            words += [f"{option}={name}={place}" for name, place in value.items()]
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-"))
        else:
            words += [f"{option}={one}" for one in (value if isinstance(value, list) else [value])]
    return words


def toml_of(said: dict[str, Any]) -> str:
    def lines(keys: Any) -> str:
        return "".join(f"{names.get(key, key)} = {json.dumps(said[key])}\n" for key in keys if key in said)

    names = {"attacks": "names", "compiles": "compile"}
    means = set(Means.model_fields) - {"directories"}
    text = lines(key for key in said if key not in means and key not in (*ROWS, "directories"))
    if "attacks" in said or "eps" in said:
        text += "[[attacks]]\n" + lines(("attacks", "eps"))
    for name in dict.fromkeys(said.get("suites", ())):
        text += f"[[suites]]\nname = {json.dumps(name)}\n" + lines(("corruptions", "severities"))
    text += "[means]\n" + lines(sorted(means))
    places = "".join(f"{name} = {json.dumps(place)}\n" for name, place in said.get("directories", {}).items())
    return f"{text}[directories]\n{places}"


def heard(step: Callable[[], Stated]) -> Stated | list[Mistake]:
    """What a door understood, or what it found wrong and where, before either is spelled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MistakesError, "said", lambda error, spelled: error)
        patch.setattr("robustbench_twicing.catalog.plans._located", lambda found, files: MistakesError(found))
        patch.setattr("robustbench_twicing.cli.app._refused", lambda error: error)
        try:
            return step()
        except MistakesError as error:
            return sorted(error.found)


@pytest.mark.parametrize("about_attacks", [True, False])
@pytest.mark.parametrize("wrong", [True, False])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_experiment_is_understood_or_refused_alike_at_every_door(
    wrong: bool, about_attacks: bool, data: st.DataObject
) -> None:
    """The same experiment, means and plan, or the same mistakes at the same places."""
    Path("last.pth").touch()
    Path("mine.toml").write_text((ROOT / "attacks" / "standard.toml").read_text())
    said = data.draw(experiments(about_attacks, wrong))
    python = heard(lambda: by_python(**said))
    if "suites" in said or not {"corruptions", "severities"} & set(said):
        assert heard(lambda: by_plan(toml_of(said))) == python
    else:  # a plan file has no place for parts of no suite
        assert isinstance(python, list)
    assert heard(lambda: by_command(*command_of(said))) == python
    if isinstance(python, Stated):
        assert python.plan.hash == resolve(python.experiment, python.means, configured()).hash


CHEAP = st.fixed_dictionaries(
    {
        "models": one(["deit"], ["deit-tw"]),
        "attacks": one(["fgsm"], ["mifgsm"]),
        "eps": one(["4/255"], ["0.02"]),
        "limit": one(1, 2),
        "seed": one(0, 3),
        "suites": st.just(["digits-c"]),
        "corruptions": one(["fog"], ["brightness"]),
        "severities": one([1], [3]),
        "eight_bit": st.just(True),
    }
)


@settings(max_examples=2, deadline=None, derandomize=True, database=None)
@given(said=CHEAP)
def test_the_same_experiment_gives_the_same_records_at_every_door(said: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "p.toml")
        file.write_text(toml_of(said))
        ways = {
            "python": lambda out: evaluate(**said, out=out, fresh=True),
            "command": lambda out: _carried_out(*command_of(said), "--fresh", "--out", out),
            "plan": lambda out: _carried_out("run", str(file), "--fresh", "--out", out),
        }
        runs = {}
        for name, carried_out in ways.items():
            carried_out(str(Path(place, name)))
            runs[name] = load_run(Path(place, name))
        python, *others = (run.records.drop(columns="seconds") for run in runs.values())
    assert len({run.manifest.plan_hash for run in runs.values()}) == 1
    assert len(python)
    for other in others:
        pd.testing.assert_frame_equal(python, other)


def _carried_out(*words: str) -> None:
    result = CliRunner().invoke(app, [*words, "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


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


def test_the_files_of_a_suite_beside_an_attack_are_not_resized_again() -> None:
    build_tree(Path("val"), "imagenet", ["n01440764"], per_class=2)
    build_tree(Path("c"), "imagenet-c", ["n01440764"], per_class=2, parts=[Part("fog", 1)])
    part = {"suites": "imagenet-c", "corruptions": "fog", "severities": 1}
    places = {"imagenet": "val", "imagenet-c": "c"}
    run = evaluate({"reader": LabelReader()}, attacks="noise", **part, directories=places, preflight=False)
    recipes = run.records.groupby("threat")["recipe"].unique().map(list)
    assert recipes["imagenet-c:fog-1"] == ["none"]
    assert recipes["clean"] == recipes["noise-linf-1/255"] != ["none"]


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


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("imagenet_a", "Did you mean imagenet-a"),
        ("digits", "digits lies in no folder"),
        ("digits-c", "lies in no folder"),
    ],
)
def test_a_folder_for_no_data_set_is_refused_at_every_door(name: str, says: str) -> None:
    said = refused_by_command("attack", "-m", "deit", "--data-dir", f"{name}=val")
    assert "--data-dir: " in said
    assert says in said
    assert says in refused_by_python(models="deit", directories={name: "val"})
    assert says in refused_by_plan(f'models = ["deit"]\n[directories]\n{name} = "val"\n')


MEANS_SAID = [
    ("attention_path", "sideways", "Unknown attention path 'sideways'."),
    ("keep_images", 0, "Input should be greater than or equal to 1 (got 0)"),
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
        ("eot", 2),
        ("eight_bit", True),
        ("source_model", "deit-tw"),
    ],
)
def test_what_is_about_attacks_is_refused_where_nothing_is_attacked(key: str, value: Any) -> None:
    says = "Nothing is attacked, so this means nothing."
    assert f"{key}=…: {says}" in refused_by_python(models="deit", suites="digits-c", **{key: value})
    toml = f'models = ["deit"]\n{key} = {json.dumps(value)}\n[[suites]]\nname = "digits-c"\n'
    assert f"line 2: {key}: {says}" in refused_by_plan(toml)


def test_parts_of_suites_without_suites_are_refused() -> None:
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
