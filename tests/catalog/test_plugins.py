"""Packages that add something by entry points, and objects of modules. Packages are made by hand, never installed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustbench_twicing.catalog import plugins
from robustbench_twicing.catalog.plugins import code_allowed, find_plugin, origins, plugin_names, refused_code, used
from robustbench_twicing.errors import UserError


def package(place: Path, name: str, points: str, **modules: str) -> None:
    """A package as pip leaves it behind: modules, and a folder with its metadata."""
    info = place / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    for module, source in modules.items():
        (place / f"{module}.py").write_text(source)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the search path; what was found before is forgotten before and after."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    plugins._registered.cache_clear()
    plugins._used.clear()
    yield tmp_path
    plugins._registered.cache_clear()
    plugins._used.clear()
    for name in set(sys.modules) - before:
        if name.startswith("brought"):
            del sys.modules[name]


def test_a_package_adds_by_name_and_is_imported_only_when_used(place: Path) -> None:
    package(place, "brings", "[twicing_bench.attacks]\nmine = brought:MINE\n", brought="MINE = 7\n")
    assert plugin_names("attacks") == ["mine"]
    assert [tuple(one) for one in origins("attacks")] == [("attacks", "mine", "brings", "1.2")]
    assert "brought" not in sys.modules
    found = find_plugin("attacks", "mine")
    assert found is not None
    assert found.value == 7
    assert used() == [found.origin]


def test_a_name_that_nobody_registered_is_nothing(place: Path) -> None:
    assert find_plugin("attacks", "mine") is None
    assert find_plugin("suites", "mine") is None


def test_a_package_that_cannot_be_imported_is_named_and_the_rest_goes_on(place: Path) -> None:
    points = "[twicing_bench.attacks]\nbad = brought_bad:MINE\ngood = brought_good:MINE\n"
    package(place, "brings", points, brought_bad="1 / 0\n", brought_good="MINE = 1\n")
    with pytest.raises(UserError, match=r"'bad' comes from the package brings 1\.2.*ZeroDivisionError"):
        find_plugin("attacks", "bad")
    good = find_plugin("attacks", "good")
    assert good is not None
    assert good.value == 1


def test_a_built_in_name_cannot_be_taken(place: Path) -> None:
    package(place, "brings", "[twicing_bench.attacks]\npgd = brought:MINE\nmine = brought:MINE\n")
    assert plugin_names("attacks", {"pgd", "fgsm"}) == ["mine"]


def test_an_object_of_a_module_in_the_working_folder_is_found_with_the_hash_of_its_file(place: Path) -> None:
    (place / "brought_here.py").write_text("class Inside:\n    MINE = 3\n")
    found = find_plugin("models", "python:brought_here:Inside.MINE")
    assert found is not None
    assert found.value == 3
    assert found.origin.package.endswith("brought_here.py")
    assert len(found.origin.version) == 12


def test_texts_of_files_that_name_code_are_found_wherever_they_stand_unless_code_is_allowed() -> None:
    content = {
        "models": ["deit", "mine=python:a:b", "deit+python:a:b", "x=/home/python:me/w.pth"],
        "attacks": [{"names": ["python:a:b"], "eps": ["1/255"]}],
        "title": "about python: and what it does",
    }
    places = [place for place, _ in refused_code(content)]
    assert places == [("models", 1), ("models", 2), ("attacks", 0, "names", 0)]
    with code_allowed():
        assert refused_code(content) == []
    with code_allowed(False):
        assert len(refused_code(content)) == 3
    assert len(refused_code(content)) == 3


@pytest.mark.parametrize(
    "text", ["python:", "python:mine", "python:a b:c", "python:../x:y", "python:os:path;x", "python::x"]
)
def test_text_that_names_no_object_is_refused_before_anything_is_imported(place: Path, text: str) -> None:
    with pytest.raises(UserError, match="names no object"):
        find_plugin("attacks", text)


@pytest.mark.parametrize(
    ("source", "says"), [("1/0", "ZeroDivisionError"), ("x = 1", "no attribute"), ("exit(3)", "Exit")]
)
def test_whatever_the_users_code_raises_is_a_message(place: Path, source: str, says: str) -> None:
    (place / "brought_wrong.py").write_text(source + "\n")
    with pytest.raises(UserError, match=says):
        find_plugin("attacks", "python:brought_wrong:MINE")


def test_nothing_is_looked_for_before_it_is_asked_for() -> None:
    code = "import sys; import robustbench_twicing.catalog.plugins; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
