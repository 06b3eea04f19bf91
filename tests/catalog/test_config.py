"""A value comes from the flag, the file, the environment or the default, in this order, and says which."""

from pathlib import Path

import pytest

from robustbench_twicing.catalog.config import FILE, data_dirs, settings, variable_of
from robustbench_twicing.catalog.resolve import state
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.means import Means


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The working folder and the user's configuration folder, both empty."""
    work, home = tmp_path / "work", tmp_path / "config" / "twicing-bench"
    work.mkdir()
    home.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent))
    monkeypatch.chdir(work)
    return work, home


def test_nothing_set(places):
    found = settings(environment={})
    assert [found.chosen(key) for key in ("data", "device", "frost-dir")] == [None, None, None]
    assert found.means() == Means()
    assert found.directories() == {}
    assert found.tables["data"]["imagenet-c"] == (None, "not set")
    assert found.tables["models"]["deit"] == ("timm:deit_tiny_patch16_224.fb_in1k", "default")
    assert list(found.files.values()) == [False, False]
    assert found == settings(environment={"PATH": "/bin", "TWICING_BENCH_DATA_IMAGENET": ""})


def test_each_place_wins_over_the_next(places):
    """Five data sets; the first is set everywhere, the second everywhere but in a flag, and so on."""
    work, home = places
    names = ["imagenet", "imagenet-a", "imagenet-c", "imagenet-r", "imagenet-v2"]
    (work / FILE).write_text("[data]\n" + "".join(f'{name} = "/file/{name}"\n' for name in names[:2]))
    (home / FILE).write_text("[data]\n" + "".join(f'{name} = "/home/{name}"\n' for name in names[:3]))
    environment = {variable_of("data", name): f"/variable/{name}" for name in names[:4]}
    found = settings(environment=environment)
    expected = ["/flag", "/file/imagenet-a", "/home/imagenet-c", "/variable/imagenet-r"]
    flag = Means.model_validate({"directories": data_dirs(["imagenet=/flag"], ())})
    assert flag.over(found.means()).directories == dict(zip(names, map(Path, expected), strict=False))
    origins = [found.tables["data"][name].origin for name in names]
    assert origins == [
        str(work / FILE),
        str(work / FILE),
        str(home / FILE),
        "TWICING_BENCH_DATA_IMAGENET_R",
        "not set",
    ]
    assert list(found.files.items()) == [(work / FILE, True), (home / FILE, True)]


def test_paths_are_relative_to_the_file_that_has_them(places, monkeypatch):
    work, home = places
    monkeypatch.setenv("HOME", "/home/someone")
    (work / FILE).write_text(
        '[data]\nimagenet = "val"\nimagenet-c = "~/c"\n"own/suite.toml" = "/own"\n'
        '[models]\ndeit-tw = "runs/c.pth"\ndeit = "timm:deit_small_patch16_224"\n"resnet18.a1_in1k" = "r.pth"\n'
    )
    (home / FILE).write_text('[defaults]\ndata = "imagenet"\ndevice = "cpu"\nfrost-dir = "frost"\n')
    variables = {"TWICING_BENCH_MODELS_DEIT_TW_LAST3": "last3.pth", "TWICING_BENCH_DEFAULTS_DATA": "digits"}
    found = settings(environment=variables)
    assert found.directories() == {
        "imagenet": work / "val",
        "imagenet-c": Path("/home/someone/c"),
        "own/suite.toml": Path("/own"),
    }
    assert found.checkpoints("imagenet") == {
        "deit": "timm:deit_small_patch16_224",
        "deit-tw": str(work / "runs/c.pth"),
        "deit-tw-last3": str(work / "last3.pth"),
        "resnet18.a1_in1k": str(work / "r.pth"),
    }
    assert found.checkpoints("digits") == {}, "the models for digits ship with the tool"
    assert (found.chosen("data"), found.chosen("device")) == ("imagenet", "cpu")
    assert found.chosen("frost-dir") == str(home / "frost")


def test_the_drawn_frost_is_no_path(places):
    (places[0] / FILE).write_text('[defaults]\nfrost-dir = "drawn"\n')
    assert settings(environment={}).chosen("frost-dir") == "drawn"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[dta]\n", r"Unknown table in .*twicing-bench\.toml: 'dta'(.|\n)*Did you mean data"),
        ('[data]\nimagenet_c = "/c"\n', r"Unknown key in \[data\] of .*'imagenet_c'(.|\n)*Did you mean imagenet-c"),
        ('[data]\nimagenet-c-generated = "/c"\n', "Unknown key"),
        ('[models]\ndeit-tv = "x.pth"\n', "Did you mean deit-tw"),
        ('[defaults]\ndevise = "cpu"\n', "Did you mean device"),
        ('[defaults]\ndata = "imagenette"\n', r"Unknown data set 'imagenette' \(from .*twicing-bench.toml\)"),
        ("[data]\nimagenet = 3\n", r"data\.imagenet is 3, and should be text"),
        ('[data]\nimagenet = ""\n', r"data\.imagenet is ''"),
        ('data = "imagenet"\n', r"data is not a table but 'imagenet'"),
        ("[data\n", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file(places, content, says):
    (places[0] / FILE).write_text(content)
    with pytest.raises(UserError, match=says):
        settings(environment={})


def test_a_variable_that_does_not_exist(places):
    with pytest.raises(UserError, match="TWICING_BENCH_DATA_IMAGENETC") as caught:
        settings(environment={"TWICING_BENCH_DATA_IMAGENETC": "/c"})
    assert "Did you mean TWICING_BENCH_DATA_IMAGENET_C?" in caught.value.hint


# --- --data-dir --------------------------------------------------------------------------------------------------


def test_a_bare_folder_belongs_to_the_only_data_set():
    assert data_dirs(["/data/c"], ["imagenet-c"]) == {"imagenet-c": Path("/data/c")}
    assert data_dirs(["./a=b"], ["imagenet-c"]) == {"imagenet-c": Path("./a=b")}
    assert data_dirs(["/data/a=b"], ["imagenet-c"]) == {"imagenet-c": Path("/data/a=b")}


def test_named_folders_need_no_order():
    flags = ["imagenet-a=/data/a", "imagenet=/data/x=y", "imagenet-a=/data/later"]
    assert data_dirs(flags, ["imagenet-a", "imagenet-r"]) == {
        "imagenet-a": Path("/data/later"),
        "imagenet": Path("/data/x=y"),
    }


def test_a_suite_of_the_users_own_is_named_as_it_was():
    assert data_dirs(["mine.toml=/data"], ["mine.toml"]) == {"mine.toml": Path("/data")}


@pytest.mark.parametrize(
    ("flag", "names", "says"),
    [
        ("/data", ["imagenet-a", "imagenet-r"], "any of imagenet-a, imagenet-r(.|\n)*--data-dir imagenet-a=/data"),
        ("/data", [], "could belong"),
        ("imagenet-a=", ["imagenet-a"], "names no folder"),
        ("", ["imagenet-a"], "names no folder"),
    ],
)
def test_mistakes_in_flags(flag, names, says):
    with pytest.raises(UserError, match=says):
        data_dirs([flag], names)


def test_weights_that_a_file_in_the_working_folder_decides_are_said(places):
    """It may have come with a cloned repository; the user's own file and what was typed are the user's."""
    work, home = places
    (work / FILE).write_text('[models]\ndeit = "hf-hub:somebody/weights"\n')
    (home / FILE).write_text('[models]\ndeit = "timm:deit_tiny_patch16_224"\n"resnet18" = "timm:resnet18.a1_in1k"\n')
    content = {"data": "imagenet", "directories": {"imagenet": str(work)}, "attacks": [{}]}
    named = state({**content, "models": ["deit", "resnet18"]}, settings())
    assert named.decided == (f"deit: its weights, hf-hub:somebody/weights, are named by {work / FILE}.",)
    typed = state({**content, "models": ["deit=hf-hub:somebody/weights"]}, settings())
    assert typed.decided == ()
    source = state({**content, "models": ["resnet18"], "source_model": "deit"}, settings())
    assert source.decided == named.decided
