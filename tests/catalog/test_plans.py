"""Plan files: what they become, and every mistake at once, each with its line."""

from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_twicing.catalog.plans import line_of, plan_names, plan_path, read_plan
from robustbench_twicing.errors import UserError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _write(text: str, name: str = "mine.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _threats(text: str) -> list[str]:
    return [threat.id for threat in read_plan(_write(text)).plan.threats]


@pytest.mark.parametrize("name", plan_names())
def test_every_plan_that_ships_is_right(name: str) -> None:
    plan = read_plan(name)
    assert plan.title
    assert len(plan.plan.cells) > 1


def test_models_and_nothing_else_is_clean_accuracy_on_digits() -> None:
    plan = read_plan(_write('models = ["deit"]')).plan
    assert [model.name for model in plan.models] == ["deit"]
    assert [threat.id for threat in plan.threats] == ["clean"]
    assert (plan.data.name, plan.data.limit, plan.seed) == ("digits", None, 0)


def test_attacks_at_every_eps_after_clean() -> None:
    text = """
        models = ["deit"]
        [[attacks]]
        names = ["fgsm", "pgd"]
        eps = ["1/255", "0.02"]
        [[attacks]]
        names = ["spsa"]
    """
    assert _threats(text) == [
        "clean",
        *("fgsm-linf-1/255", "fgsm-linf-0.02", "pgd-linf-1/255", "pgd-linf-0.02"),
        "spsa-linf-1/255",
    ]


def test_an_attack_table_without_names_takes_the_protocols_list() -> None:
    assert _threats('models = ["deit"]\n[[attacks]]\n') == [
        "clean",
        *("fgsm-linf-1/255", "pgd-linf-1/255", "spsa-linf-1/255"),
    ]


def test_suites_bring_their_clean_run() -> None:
    text = 'models = ["deit"]\n[[suites]]\nname = "digits-c"\ncorruptions = ["fog"]\nseverities = [2, 4]\n'
    assert _threats(text) == ["clean", "digits-c:fog-2", "digits-c:fog-4"]


def test_a_masked_suite_is_compared_with_clean_on_its_own_classes_if_there_is_a_directory() -> None:
    text = 'models = ["deit"]\n[[suites]]\nname = "imagenet-a"\n'
    assert _threats(text) == ["imagenet-a"]
    assert _threats(text + '[directories]\nimagenet = "val"\n') == ["clean[imagenet-a]", "imagenet-a"]


def test_checkpoints_and_directories_are_relative_to_the_file_that_names_them() -> None:
    _write("", "plans/weights/last.pth")
    text = """
        models = [
            "deit",
            "deit-tw=weights/last.pth",
            "deit-tw@mine=weights/last.pth",
        ]
        [directories]
        imagenet = "../data"
        imagenet-c = "/absolute"
    """
    read = read_plan(_write(text, "plans/p.toml"))
    assert [model.weights for model in read.plan.models[1:]] == ["file:plans/weights/last.pth"] * 2
    assert [(model.name, str(model.attention)) for model in read.plan.models[1:]] == [
        ("deit-tw", "twicing"),
        ("deit-tw@mine", "twicing"),
    ]
    assert read.means.directories == {"imagenet": Path("plans/../data"), "imagenet-c": Path("/absolute")}


def test_a_plan_replaces_what_it_gives_and_keeps_the_rest_of_the_one_it_extends() -> None:
    _write('title = "base"\nmodels = ["deit"]\nlimit = 9\n[gate]\nalpha = 0.01\ntolerance = 0.1\n', "sub/base.toml")
    read = read_plan(_write('extends = "sub/base.toml"\nlimit = 5\n[gate]\ntolerance = 0.2\n'))
    assert (read.name, read.title, read.plan.data.limit) == ("mine", "base", 5)
    assert (read.gate.alpha, read.gate.tolerance) == (0.01, 0.2)


def test_a_plan_can_extend_one_that_ships() -> None:
    read = read_plan(_write('extends = "nightly"\nmodels = ["deit-tw"]\n'))
    assert [threat.id for threat in read.plan.threats] == [threat.id for threat in read_plan("nightly").plan.threats]


def test_plans_that_extend_each_other_are_refused() -> None:
    _write('extends = "b.toml"', "a.toml")
    _write('extends = "a.toml"', "b.toml")
    with pytest.raises(UserError, match=r"circle: a\.toml extends b\.toml extends a\.toml"):
        read_plan("a.toml")


def test_every_wrong_key_type_and_range_is_named_with_its_line() -> None:
    text = """\
colour = "red"
models = []
limit = 0

[gate]
alpha = "much"
tolerance = 2
"""
    with pytest.raises(UserError, match=r"5 mistake") as caught:
        read_plan(_write(text))
    for line, key in ((1, "colour"), (2, "models"), (3, "limit"), (6, "gate.alpha"), (7, "gate.tolerance")):
        assert f"mine.toml, line {line}: {key}:" in caught.value.message


def test_every_wrong_name_is_named_with_its_line() -> None:
    text = """\
models = [
    "diet",     # a typo
    "deit",
    "deit",
]

[[attacks]]
names = ["fgsm", "pdg"]
eps = ["1/255",
       "8"]

[[suites]]
name = "digits-c"
corruptions = ["fogg"]
severities = [1, 6]

[directories]
imagnet = "x"
"""
    with pytest.raises(UserError) as caught:
        read_plan(_write(text))
    said = caught.value.message
    assert "7 mistake" in said
    assert "line 2: models[0]: Unknown model 'diet'. Did you mean deit" in said
    assert "line 8: attacks[0].names[1]: Unknown attack 'pdg'. Did you mean pgd" in said
    assert "line 10: attacks[0].eps[1]: eps '8' is larger than the whole pixel range [0, 1]. Did you mean" in said
    assert "line 14: suites[0].corruptions[0]: Unknown corruption 'fogg'" in said
    assert "line 15: suites[0].severities[1]: Severity 6 does not exist" in said
    assert "line 4: models[2]: The name 'deit' is given twice" in said
    assert "line 18: directories.imagnet: Unknown data set 'imagnet'" in said


def test_wrong_forms_and_wrong_names_are_named_together() -> None:
    text = """\
models = ["diet"]
limt = 5
seed = -1
protocol = "standrd"
data = "imagenet"

[[attacks]]
eps = ["1/0"]

[gate]
floors = { "deit:clean" = 95 }
"""
    with pytest.raises(UserError) as caught:
        read_plan(_write(text))
    said = caught.value.message
    assert "6 mistake" in said
    assert "line 2: limt: Unknown key 'limt'. Did you mean limit" in said
    assert "line 3: seed: " in said
    assert "line 11: gate.floors.deit:clean: Input should be less than or equal to 1 (got 95)" in said
    assert "line 1: models[0]: Unknown model 'diet'" in said
    assert "line 4: protocol: Unknown protocol 'standrd'" in said
    assert "line 8: attacks[0].eps[0]: eps '1/0' divides by zero" in said


def test_models_are_not_judged_by_the_wrong_data_set() -> None:
    with pytest.raises(UserError, match="1 mistake") as caught:
        read_plan(_write('models = ["resnet50"]\ndata = 3\n'))
    assert "line 2: data: " in caught.value.message


def test_wrong_models_are_named_with_their_lines() -> None:
    text = 'models = [\n  "diet",\n  "deit=nowhere.pth",\n]\n[[attacks]]\n'
    with pytest.raises(UserError) as caught:
        read_plan(_write(text))
    assert "line 2: models[0]: Unknown model 'diet'. Did you mean deit" in caught.value.message
    assert "line 3: models[1]: No checkpoint at nowhere.pth" in caught.value.message


def test_a_mistake_in_an_extended_plan_is_named_there() -> None:
    _write('models = ["diet"]\n', "base.toml")
    with pytest.raises(UserError, match=r"base\.toml, line 1: models\[0\]"):
        read_plan(_write('extends = "base.toml"\n\n\nseed = 1\n'))


SEEDS = "models = [" + ", ".join(f'"{m}@s{n}"' for m in ("deit", "deit-tw") for n in range(3)) + "]\n"


def test_arms_are_patterns_of_the_plans_models() -> None:
    text = SEEDS + '[arms]\ndeit = "deit@*"\ntwicing = ["deit-tw@s0", "deit-tw@s1", "deit-tw@s2"]\n'
    arms = read_plan(_write(text)).arms
    assert list(arms.items()) == [("deit", ("deit@*",)), ("twicing", ("deit-tw@s0", "deit-tw@s1", "deit-tw@s2"))]
    assert read_plan(_write(text)).plan == read_plan(_write(SEEDS)).plan  # they decide no number


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ('deit = "deit@*"\nx = "vit*"\n', r"line 4: arms\.x: Arm x: no model fits 'vit\*'"),
        ('deit = "deit@*"\nall = "*"\n', r"line 4: arms\.all: Model 'deit@s0' is in the arms deit and all"),
        ('deit = "deit@*"\nfew = ["deit-tw@s0"]\n', r"line 4: arms\.few: Arm few has 1 seed"),
        ('deit = "deit@*"\n', r"line 3: arms\.deit: One arm has nothing to be compared with"),
        ('deit = "deit@*"\nx = []\n', r"line 4: arms\.x: Nothing is named here"),
        ('deit = "deit@*"\nx = 3\n', r"line 4: arms\.x: "),
    ],
)
def test_what_is_no_arm_is_a_mistake_with_its_line(arms: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_plan(_write(SEEDS + "[arms]\n" + arms))


def test_a_gate_that_can_never_pass_says_so_when_the_plan_is_read() -> None:
    text = 'models = ["deit", "deit-tw"]\n[[attacks]]\nnames = ["spsa"]\n[gate]\ntolerances = { "*:spsa-*" = 0.15 }\n'
    read = read_plan(_write(text))  # SPSA suggests 10 samples
    assert read.never_pass == tuple(
        f"The gate can never pass {model}:spsa-linf-1/255: 10 images rule out no drop of 15.0 points, "
        "even if no answer changes; it takes 19."
        for model in ("deit", "deit-tw")
    )
    assert read_plan(_write(text.replace("0.15", "0.3"))).never_pass == ()
    assert read_plan(_write(text.partition("[gate]")[0])).never_pass == ()  # no gate is asked for
    many = read_plan(_write('models = ["deit"]\nlimit = 20\n[[suites]]\nname = "digits-c"\n[gate]\n')).never_pass
    assert len(many) == 7
    assert "deit:clean: 20 images rule out no drop of 1.0 points" in many[0]
    assert many[-1].endswith("cells more that can never pass")


def test_the_gate_of_arms_is_named_after_the_arms() -> None:
    seeds = ", ".join(f'"{name}@s{seed}=w.pth"' for name in ("deit", "deit-tw") for seed in range(3))
    Path("w.pth").write_bytes(b"")
    text = f'models = [{seeds}]\nlimit = 20\n[arms]\nsoft = "deit@*"\ntw = "deit-tw@*"\n[gate]\n'
    assert read_plan(_write(text)).never_pass[0].startswith("The gate can never pass soft:clean: 20 images")
    assert read_plan(_write(text + 'tolerances = { "tw:clean" = 0.2 }\n')).gate.tolerances == {"tw:clean": 0.2}
    with pytest.raises(UserError, match=r"deit@s0:clean: No MODEL:THREAT"):
        read_plan(_write(text + 'tolerances = { "deit@s0:clean" = 0.2 }\n'))


def test_an_alpha_that_no_gate_takes_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"line 3: gate.alpha: alpha = 0.2 is above 0.1"):
        read_plan(_write('models = ["deit"]\n[gate]\nalpha = 0.2\n'))


def test_a_gate_pattern_that_fits_no_cell_is_a_mistake() -> None:
    text = 'models = ["deit"]\n[gate]\nfloors = { "deit:claen" = 0.9 }\n'
    with pytest.raises(UserError, match=r"line 3: gate\.floors\.deit:claen: No MODEL:THREAT"):
        read_plan(_write(text))


def test_a_threat_named_twice_is_a_mistake() -> None:
    with pytest.raises(UserError, match="Named twice: fgsm-linf-1/255"):
        read_plan(_write('models = ["deit"]\n[[attacks]]\nnames = ["fgsm"]\n[[attacks]]\nnames = ["fgsm"]\n'))


def test_suites_of_two_data_sets_are_refused() -> None:
    text = 'models = ["deit"]\n[[suites]]\nname = "digits-c"\n[[suites]]\nname = "imagenet-a"\n'
    with pytest.raises(UserError, match=r"line \d: suites: .*different data sets"):
        read_plan(_write(text))


def test_each_suite_keeps_its_own_recipe_unless_the_plan_or_its_protocol_has_one() -> None:
    """ImageNet-C's files must not be resized again because the clean images are attacked in the same plan."""
    attacks = '[[attacks]]\nnames = ["fgsm"]\n'
    suites = '[[suites]]\nname = "imagenet-c"\ncorruptions = ["fog"]\n'
    head = 'models = ["deit"]\ndata = "imagenet"\n'
    assert read_plan(_write(head + attacks + suites)).plan.recipe is None
    assert read_plan(_write('recipe = "model"\n' + head + attacks + suites)).plan.recipe == "model"
    assert read_plan(_write('protocol = "paper"\n' + head + attacks)).plan.recipe == "paper"
    with pytest.raises(UserError, match="Write two plans"):
        read_plan(_write('protocol = "paper"\n' + head + attacks + suites))


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere.toml", "No file nowhere.toml"), ("nigthly", "nightly"), ("broken.toml", "not valid TOML")],
)
def test_what_is_no_plan_is_explained(name: str, says: str) -> None:
    _write("models = [", "broken.toml")
    with pytest.raises(UserError, match=says.split()[0]) as caught:
        read_plan(name)
    assert says in str(caught.value)


def test_a_shipped_plans_file_is_found() -> None:
    assert plan_path("nightly").name == "nightly.toml"


# --- lines -----------------------------------------------------------------------------------------------------------


def test_text_that_looks_like_a_key_is_not_taken_for_one() -> None:
    text = 'about = """\nlimit = 3\n[gate]\n"""\n# limit = 4\nlimit = 5\n[gate] # limit = 6\nalpha = 0.1\n'
    assert line_of(text, ("limit",)) == 6
    assert line_of(text, ("gate", "alpha")) == 8
    assert line_of(text, ("gate", "beta")) == 7
    assert line_of(text, ("nothing",)) is None


@given(st.lists(st.sampled_from(["", "# seed = 1", "   ", "\t# [gate]"]), max_size=4), st.integers(0, 5))
def test_a_keys_line_is_where_it_was_written(padding: list[str], before: int) -> None:
    keys = [f"key{number} = {number}" for number in range(before)]
    lines = [*keys, *padding, "wanted = [", "  1,", "]", *padding]
    assert line_of("\n".join(lines), ("wanted",)) == len(keys) + len(padding) + 1


def test_thousands_of_mistakes_are_named_in_linear_time() -> None:
    """53 s were seen for 3,000 equal names, 3 are usual now: the bound leaves room for slow machines."""
    text = "models = [\n" + '"deit",\n' * 3000 + "]\n"
    begun = process_time()
    with pytest.raises(UserError, match=r"2,999 mistake(.|\n)*and 2,899 more") as caught:
        read_plan(_write(text))
    assert "line 3: models[1]: The name 'deit' is given twice" in caught.value.message
    assert process_time() - begun < 15
