"""Suite definitions: what ships agrees with the published facts, and mistakes in a user's own file are named."""

import csv
from pathlib import Path

import pytest
import timm.data

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.suites import class_list, class_list_names, suite, suite_definition, suite_names
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.corruptions import CORRUPTIONS, Corruption
from robustbench_twicing.spec.suite import Denominator

SHIPPED = [
    "imagenet",
    "imagenet-3dcc",
    "imagenet-a",
    "imagenet-c",
    "imagenet-c-bar",
    "imagenet-o",
    "imagenet-r",
    "imagenet-real",
    "imagenet-sketch",
    "imagenet-stylized",
    "imagenet-v2",
    "objectnet",
]
GENERATED = 'title = "t"\nsource = "s"\nlayout = "generated"\nclean = "imagenet"\nimages = 3\nseverities = [1]\n'
OWN = 'title = "t"\nsource = "s"\nlayout = "classes"\nimages = 3\n'


def test_the_suites_of_imagenet_ship() -> None:
    assert set(SHIPPED) <= set(suite_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_suite_can_be_read_and_names_its_source(name: str) -> None:
    spec = suite(name)
    assert spec.name == name
    assert "arXiv" in spec.source or "NeurIPS" in spec.source
    assert spec.clean is None or suite(spec.clean).index == spec.index


# Counts and masks: field notes 4.6, from timm's results/README.md and the data sets' own pages.
@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("imagenet", 50_000, 1000),
        ("imagenet-real", 50_000, 1000),
        ("imagenet-v2", 10_000, 1000),
        ("imagenet-sketch", 50_889, 1000),
        ("imagenet-a", 7_500, 200),
        ("imagenet-r", 30_000, 200),
        ("imagenet-o", 2_000, 200),
        ("imagenet-c", 50_000, 1000),
        ("imagenet-c-bar", None, 1000),  # the authors' README and code; no count is published
        ("imagenet-3dcc", None, 1000),
        ("imagenet-stylized", 50_000, 1000),
        ("objectnet", 18_574, 1000),
    ],
)
def test_counts_are_the_published_ones(name: str, images: int | None, classes: int) -> None:
    spec = suite(name)
    assert (spec.images, len(spec.mask)) == (images, classes)
    assert spec.masked == (classes == 200)
    assert spec.images_per_class in (None, (images or 0) // classes)


def test_the_index_is_timms_order_of_the_logits() -> None:
    info = timm.data.ImageNetInfo("imagenet-1k")
    assert list(class_list("imagenet")) == [info.index_to_label_name(position) for position in range(1000)]


# First and last logits of the masks: field notes 4.6, verified there against four independent lists.
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("imagenet-a", (6, 11, 13, 15, 17), (986, 987, 988)), ("imagenet-r", (1, 2, 4, 6, 8), (981, 983, 988))],
)
def test_masks_are_the_published_indices(name: str, first: tuple[int, ...], last: tuple[int, ...]) -> None:
    mask = suite(name).mask
    assert mask[: len(first)] == first
    assert mask[-len(last) :] == last
    folder = Path(timm.data.__file__).parent / "_info"
    theirs = (folder / f"{name.replace('-', '_')}_indices.txt").read_text().split()
    assert list(mask) == [int(index) for index in theirs]


def test_the_three_sets_of_two_hundred_are_different_ones() -> None:
    a, r, o = (set(class_list(name)) for name in ("imagenet-a", "imagenet-r", "imagenet-o"))
    assert len(a & r) == 86
    assert a != o != r


def test_imagenet_c_has_fifteen_corruptions_four_extras_and_the_alexnet_constants_for_the_fifteen() -> None:
    spec = suite("imagenet-c")
    assert len(spec.common) == 15
    assert spec.extra == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert len(spec.parts()) == 95
    assert len(spec.parts(spec.common)) == 75
    assert str(spec.parts(["fog"])[2]) == "fog/3"
    with (definitions("corruptions") / "alexnet-errors.csv").open() as file:
        constants = [row["corruption"] for row in csv.DictReader(line for line in file if not line.startswith("#"))]
    assert set(constants) - {"clean"} == set(spec.common)


@pytest.mark.parametrize(("name", "corruptions"), [("imagenet-c-bar", 10), ("imagenet-3dcc", 12)])
def test_other_corruptions_of_imagenet_have_no_mce(name: str, corruptions: int) -> None:
    spec = suite(name)
    assert (len(spec.parts()), spec.extra, spec.denominator) == (5 * corruptions, (), None)
    assert not set(spec.common) & set(suite("imagenet-c").common)


@pytest.mark.parametrize("name", ["imagenet-c-generated", "digits-c"])
def test_a_generated_suite_has_its_families_from_the_table_and_its_mean_over_those_of_imagenet_c(name: str) -> None:
    spec, files = suite(name), suite("imagenet-c")
    assert spec.families == files.families
    assert spec.parts()[: len(files.parts())] == files.parts()


@pytest.mark.parametrize(("family", "position"), [("lens", 0), ("noise", 0), ("lens", 19)])
def test_a_corruption_that_is_added_joins_generated_suites_outside_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, position: int
) -> None:
    (tmp_path / "mine.toml").write_text((definitions("corruptions") / "digits-c.toml").read_text())
    before, files = suite("digits-c"), suite("imagenet-c")
    rows = list(CORRUPTIONS.items())
    rows.insert(position, ("one-more", Corruption(family, "one.more", {224: (1, 2, 3, 4, 5)})))
    for place in ("spec.corruptions", "spec.suite", "catalog.suites"):
        monkeypatch.setattr(f"robustbench_twicing.{place}.CORRUPTIONS", dict(rows))
    after = suite(str(tmp_path / "mine.toml"))
    assert after.families == before.families
    grown = {**before.extra_families, family: (*before.extra_families.get(family, ()), "one-more")}
    assert {name: {*some} for name, some in after.extra_families.items()} == {
        name: {*some} for name, some in grown.items()
    }
    assert suite("imagenet-c").extra == files.extra  # files are what they are


def test_whose_errors_mce_divides_by_is_the_suites_to_say(tmp_path: Path) -> None:
    cells = 'layout = "corruptions"\nimages = 3\ntitle = "t"\nsource = "s"\nseverities = [1, 3]\n'
    families = '[families]\nlens = ["vignette"]\n'
    (tmp_path / "mine.csv").write_text("corruption,severity,error\nvignette,1,0.25\nvignette,3,0.5\nclean,0,0.125\n")
    for text, expected in (
        ("", None),
        ('denominator = "deit"\n', Denominator(name="deit")),
        (
            'denominator = "mine.csv"\n',
            Denominator(name="mine", clean=0.125, errors={"vignette/1": 0.25, "vignette/3": 0.5}),
        ),
    ):
        (tmp_path / "mine.toml").write_text(cells + text + families)
        assert suite_definition(str(tmp_path / "mine.toml")).denominator == expected
    assert suite_definition("imagenet-c").denominator == suite_definition("imagenet-c-generated").denominator
    assert suite_definition("digits-c").denominator == Denominator(name="deit")


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        (None, "cannot be read"),
        ("corruption,severity,error\n", "holds no error"),
        ("corruption,severity\nfog,1\n", "line 2"),
        ("corruption,severity,error\nfog,1,12.5\n", "no fraction"),
        ("corruption,severity,error\nfog,one,0.5\n", "line 2"),
        ("corruption,severity,error\nfog,1,0.5\nfog,1,0.5\n", "line 3.*twice"),
        ("corruption,severity,error\nfog,1,nan\n", "no fraction"),
        ("corruption,severity,error\nfog,1,0.5\n", "no error for 1 of.*fog/2"),
    ],
)
def test_mistakes_in_a_file_of_errors_are_named(tmp_path: Path, errors: str | None, why: str) -> None:
    if errors is not None:
        (tmp_path / "errors.csv").write_text(errors)
    text = OWN.replace('"classes"', '"corruptions"') + 'severities = [1, 2]\ndenominator = "errors.csv"\n'
    (tmp_path / "mine.toml").write_text(text + '[families]\na = ["fog"]\n')
    with pytest.raises(UserError, match=why):
        suite(str(tmp_path / "mine.toml"))


def test_every_key_is_explained_in_the_readme() -> None:
    text = (definitions("corruptions") / "README.md").read_text()
    for key in type(suite("imagenet")).model_fields.keys() - {"name", "own_classes"}:
        assert f"`{key}`" in text, key
    for name in class_list_names():
        assert f"classes/{name}.txt" in text, name


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match="Unknown suite") as error:
        suite("imagenet-d")
    assert "imagenet-a" in error.value.hint
    with pytest.raises(UserError, match="Unknown class list"):
        class_list("imagnet")


def test_a_suite_of_ones_own_with_a_class_list_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("n02085620\nn02123045\n")
    (tmp_path / "pets.toml").write_text(OWN + 'classes = "pets.txt"\n')
    spec = suite(str(tmp_path / "pets.toml"))
    assert spec.name == "pets"
    assert spec.mask == (151, 281)
    assert spec.masked


def test_a_label_space_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "index.txt").write_text("cat\ndog\nhorse\n")
    (tmp_path / "mine.toml").write_text(OWN + 'index = "index.txt"\nclasses = "index.txt"\n')
    spec = suite(str(tmp_path / "mine.toml"))
    assert spec.mask == (0, 1, 2)
    assert not spec.masked


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OWN.replace("layout", "layuot"), "layuot"),
        (OWN.replace('"classes"', '"folders"'), "layout"),
        (OWN.replace("3", "-3"), "images"),
        (OWN.replace('"classes"', '"corruptions"'), "severities"),
        (OWN + 'recipe = "none"\n', "image_size"),
        (OWN + "file_names = '('\n", "regular expression"),
        (OWN.replace('"classes"', '"corruptions"') + 'severities = [1]\n[families]\na = ["fog"]\nb = ["fog"]\n', "fog"),
        (OWN + 'common_of = "imagenet-c"\n', "generated"),
        (OWN + 'denominator = "alexnet"\n', "suite of corruptions"),
        (GENERATED + 'common_of = "imagenet"\n', "no corruptions"),
        (GENERATED + 'common_of = "imagenet-d"\n', "Unknown suite"),
        (GENERATED + 'common_of = "imagenet-c"\n[families]\na = ["fog"]\n', "twice"),
        (GENERATED + '[families]\na = ["fgo"]\n', "'fgo' can be generated"),
        (GENERATED + 'denominator = "alexnet"\n[families]\na = ["saturate"]\n', "no error for 1 .*saturate/1"),
        (OWN + 'classes = "absent.txt"\n', "absent.txt"),
        (OWN + 'classes = "twice.txt"\n', "twice"),
        (OWN + 'classes = "empty.txt"\n', "is empty"),
        (OWN + 'classes = "other.txt"\n', "not in the index"),
        (OWN + 'classes = "nowhere"\n', "Unknown class list"),
        (OWN[:-3], "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "twice.txt").write_text("n01440764\nn01440764\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.txt").write_text("n00000000\n")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=why):
        suite(str(tmp_path / "mine.toml"))
