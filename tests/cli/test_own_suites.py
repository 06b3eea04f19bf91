"""Data of one's own through the command line: a TOML beside the data, and a small timm network saved as a file.

What a run records of each image is compared with what timm's own network and transform say of the same file.
"""

import json
import pickle
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from typer.testing import CliRunner

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.cli.app import app
from robustbench_twicing.results.run import load_run
from robustbench_twicing.spec.plan import Plan
from tests.imagenet_trees import pack_tar, photograph, picture_of

PETS = ("Great Dane", "cat", "größe")
SMALL = "deit_digits_patch8_32"
"""Ten classes, 32 pixels: CIFAR's."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _network(architecture: str, classes: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(classes)
        network = timm.create_model(architecture, num_classes=classes).eval()
        for parameter in network.parameters():  # so that the answers differ from image to image
            parameter.data.normal_(std=0.2)
    return network


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], str]:
    folder = tmp_path_factory.mktemp("weights")

    def save(architecture: str, classes: int) -> str:
        path = folder / f"{architecture}-{classes}.safetensors"
        if not path.exists():
            save_file(_network(architecture, classes).state_dict(), path)
        return f"{architecture}={path}"

    return save


def _run(*arguments: str) -> tuple[pd.DataFrame, Any]:
    result = CliRunner().invoke(app, [*arguments, "--quiet", "--out", "run"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    run = load_run("run")
    return run.records, run


def _refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def _pets(root: Path, split: str = "", size: tuple[int, int] = (80, 60)) -> None:
    for label, name in enumerate(PETS):
        (root / split / name).mkdir(parents=True)
        for number in range(2):
            picture_of(label, 10 * label + number, size).save(root / split / name / f"photo {number}.png")


def _timms_answer(network: Any, file: Path) -> int:
    transform = create_transform(**resolve_data_config(network.pretrained_cfg), is_training=False)
    with torch.no_grad():
        return int(network(transform(Image.open(file).convert("RGB"))[None]).argmax())


# --- folders without a TOML file -------------------------------------------------------------------------------------


def test_a_folder_is_data_by_its_path_alone_and_ids_pick_from_it(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "data" / "pets", "val")
    picture_of(0).save(tmp_path / "data" / "pets" / "val" / "loose.png")
    Path("ids.txt").write_text("cat/photo 1\n\ngröße/photo 0\n", encoding="utf-8")
    whole, _ = _run("attack", "-m", saved("test_vit", 3), "--data", "folder:data/pets", "-a", "fgsm")
    run = load_run("run")
    assert run.manifest.suites["folder:data/pets"].spec.index == tuple(sorted(PETS))
    assert "1 image(s) in no class folder are left out: val/loose.png" in "".join(run.manifest.data["clean"].warnings)
    words = ("-m", saved("test_vit", 3), "--data", "folder:data/pets", "-c", "fog", "--severity", "3")
    result = CliRunner().invoke(app, ["corrupt", *words, "--ids", "ids.txt", "-q"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (folder,) = Path("results/runs").glob("pets-*")
    some = load_run(folder).records
    assert set(some["sample_id"]) == {"cat/photo 1", "größe/photo 0"}
    assert set(some["threat"]) == {"clean", "corrupted:folder:data/pets:fog-3"}
    clean = {
        frame: records[records["threat"] == "clean"].set_index("sample_id")["prediction"]
        for frame, records in (("whole", whole), ("some", some))
    }
    assert (clean["whole"].loc[clean["some"].index] == clean["some"]).all()


def test_a_plan_names_its_folder_and_ids_from_where_it_lies_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    Path("plans/ids.txt").write_text("b/1\na/2\n")
    Path("plans/p.toml").write_text('models = ["test_vit"]\ndata = "folder:../pets"\nids = "ids.txt"\n[[attacks]]\n')
    plan = read_plan("plans/p.toml", settings()).plan
    assert (plan.data.name, plan.data.ids) == ("folder:plans/../pets", ("a/2", "b/1"))
    assert Plan.model_validate_json(plan.model_dump_json()).data == plan.data
    without = plan.model_copy(update={"data": plan.data.model_copy(update={"ids": ()})})
    assert "ids" not in without.model_dump()["data"]
    assert without.hash != plan.hash


def test_folders_and_ids_that_are_none_are_refused_by_name(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "pets")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    for place in ("one/cat", "flat"):
        picture_of(0).save(tmp_path / place / "a.png")
    model = saved("test_vit", 3)
    for data, said in (
        ("one", "names the classes of suite 'one', and they are cat. Two class folders are needed at least."),
        ("flat", "found 1 image(s) in no class folder (a.png)"),
        ("nowhere", "Nothing at nowhere. Check --data;"),
        ("", "folder: names no folder."),
    ):
        assert said in _refused("attack", "-m", model, "--data", f"folder:{data}", "-a", "fgsm")
    other = _refused("attack", "-m", saved(SMALL, 10), "--data", "folder:pets", "-a", "fgsm")
    assert "has 10 classes, data set 'pets' has 3." in other
    assert "is no set of clean images" in _refused("corrupt", "-m", model, "--suite", "corrupted:imagenet-c")
    for text, said in (
        ("", "lists no sample."),
        ("a\na\n", "lists 1 sample(s) twice, such as a."),
        ("cat/photo 1\ncat/photo 7\n", "1 of the 2 ids name no sample of 'pets', such as cat/photo 7."),
    ):
        Path("ids.txt").write_text(text)
        assert said in _refused("attack", "-m", model, "--data", "folder:pets", "-a", "fgsm", "--ids", "ids.txt")


# --- imagefolder -----------------------------------------------------------------------------------------------------


def test_class_folders_of_ones_own_are_attacked_with_their_names_as_classes(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "data", "val")
    _pets(tmp_path / "data", "train")
    (tmp_path / "data" / "pets.toml").write_text('layout = "imagefolder"\n')
    model = saved("test_vit", 3)
    records, run = _run("attack", "--model", model, "--data", "data/pets.toml", "--attack", "fgsm")
    clean = records[records["threat"] == "clean"].set_index("sample_id")
    assert set(clean.index) == {f"{name}/photo {number}" for name in PETS for number in range(2)}
    network = _network("test_vit", 3)
    for name, row in clean.iterrows():
        assert row["label"] == sorted(PETS).index(str(name).partition("/")[0])
        assert row["prediction"] == _timms_answer(network, tmp_path / "data" / "val" / f"{name}.png")
    assert len(records[records["attack"] == "fgsm"]) == 6
    written = run.manifest.suites["data/pets.toml"].spec
    assert written.index == written.classes == tuple(sorted(PETS))
    assert run.summary["n"].tolist() == [6, 6]


@pytest.mark.parametrize(
    "words", [["attack", "-m", "test_vit", "--data", "pets.toml", "-a", "noise"], ["run", "p.toml"]]
)
def test_weights_that_a_file_in_the_working_folder_decided_are_said_before_work(
    words: list[str], saved, tmp_path: Path
) -> None:
    _pets(tmp_path / "pets")
    _, _, file = saved("test_vit", 3).partition("=")
    Path("twicing-bench.toml").write_text(f'[models]\ntest_vit = "{file}"\n')
    Path("pets.toml").write_text('layout = "imagefolder"\ndirectory = "pets"\n')
    Path("p.toml").write_text('models = ["test_vit"]\ndata = "pets.toml"\n')
    ended = CliRunner().invoke(app, [*words, "--out", "run"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    said = f"test_vit: its weights, file:{file}, are named by {tmp_path / 'twicing-bench.toml'}."
    told = "".join(ended.stderr.split())  # however long the path is, and wherever its line is folded
    assert told.index("".join(said.split())) < 80  # before it stands at most that it is loading
    assert load_run("run").manifest.decided == (said,)
    assert "test_vit: its weights," in ended.stdout[: ended.stdout.index("Accuracy on")]


def test_a_generated_suite_is_made_from_data_of_ones_own(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "pets")
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "pets.toml").write_text('layout = "imagefolder"\ndirectory = "../pets"\n')
    (tmp_path / "suites" / "pets-c.toml").write_text('layout = "generated"\nclean = "pets.toml"\n')
    some = ("-c", "fog", "-c", "pixelate", "--severity", "3")
    records, run = _run("corrupt", "--model", saved("test_vit", 3), "--suite", "suites/pets-c.toml", *some)
    assert set(run.summary["threat"]) == {
        "clean",
        "suites/pets-c.toml:fog-3",
        "suites/pets-c.toml:pixelate-3",
    }
    assert set(run.summary["n"]) == {6}
    assert records.groupby("threat")["sample_id"].nunique().eq(6).all()
    clean = run.summary.set_index("threat").loc["clean", "accuracy"]
    fog = run.summary.set_index("threat").loc["suites/pets-c.toml:fog-3"]
    assert fog["drop"] == pytest.approx(fog["accuracy"] - clean)
    definition = run.manifest.suites["suites/pets-c.toml"].spec
    assert definition.index == tuple(sorted(PETS))
    assert len(definition.common) == 15


def test_the_same_command_again_continues_and_shows_the_run(saved, tmp_path: Path) -> None:
    _pets(tmp_path)
    Path("pets.toml").write_text('layout = "imagefolder"\n')
    command = ("attack", "--model", saved("test_vit", 3), "--data", "pets.toml", "--attack", "noise")
    first, _ = _run(*command)
    again, _ = _run(*command)
    pd.testing.assert_frame_equal(first, again)


def test_a_list_of_classes_gives_their_order_and_names_what_is_no_class(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "data")
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "names.txt").write_text("größe\ncat\nGreat Dane\nunicorn\n")
    (tmp_path / "pets.toml").write_text('layout = "imagefolder"\ndirectory = "data"\nclasses = "names.txt"\n')
    records, _ = _run("attack", "--model", saved("test_vit", 4), "--data", "pets.toml", "--attack", "noise")
    assert set(records[records["sample_id"].str.startswith("cat/")]["label"]) == {1}
    assert set(records["label"]) == {0, 1, 2}


def test_a_suite_as_a_threat_and_in_an_archive(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "data")
    pack_tar(tmp_path / "data", tmp_path / "pets.tar", "pets")
    (tmp_path / "pets.toml").write_text('layout = "imagefolder"\n')
    command = ("corrupt", "--model", saved("test_vit", 3), "--suite", "pets.toml", "--data-dir", "pets.tar")
    records, _ = _run(*command)
    assert records[records["suite"] == "pets.toml"]["sample_id"].nunique() == 6


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('layout = "imagefolders"', "layout"),
        ('layout = "imagefolder"\nclases = "x.txt"', "clases"),
        ('layout = "imagefolder"\nclasses = "absent.txt"', "absent.txt"),
        ('layout = "imagefolder"\ndirectory = 3', 'directory = "path/to/the/data"'),
        ('layout = "imagefolder"\ndirectory = "nowhere"', "Nothing at nowhere"),
        ('layout = "imagefolder"\nrecipe = "none"', "image_size"),
        ('layout = "generated"', "needs clean"),
        ('layout = "generated"\nclean = "mine.toml"', "leads back to itself"),
        ('layout = "cifar-c"', 'classes = "cifar10"'),
        ('layout = "imagefolder"\nindex = "cifar10"\nclasses = "folders"', "Leave index away"),
        ('title = "no layout"', "layout"),
    ],
)
def test_what_is_missing_or_wrong_in_a_suite_names_the_key(tmp_path: Path, toml: str, says: str) -> None:
    _pets(tmp_path / "data")
    Path("mine.toml").write_text(toml + "\n")
    assert says in _refused("attack", "--model", "deit", "--data", "mine.toml")


def test_folders_that_cannot_be_classes_are_named_with_what_to_write(tmp_path: Path) -> None:
    _pets(tmp_path)
    (tmp_path / "empty").mkdir()
    Path("pets.toml").write_text('layout = "imagefolder"\n')
    said = _refused("attack", "--model", "deit", "--data", "pets.toml")
    assert "no image in 1 folder(s), and each folder is a class: empty" in said
    assert 'classes = "names.txt"' in said
    (tmp_path / "only" / "one").mkdir(parents=True)
    picture_of(0).save(tmp_path / "only" / "one" / "a.jpg")
    assert "Two class folders" in _refused("attack", "--model", "deit", "--data", "pets.toml", "--data-dir", "only")
    assert "sort the images" in _refused("attack", "--model", "deit", "--data", "pets.toml", "--data-dir", "cat")


def test_a_model_of_other_classes_is_refused(saved, tmp_path: Path) -> None:
    _pets(tmp_path)
    Path("pets.toml").write_text('layout = "imagefolder"\n')
    said = _refused("attack", "--model", saved("test_vit", 4), "--data", "pets.toml", "--attack", "noise")
    assert "4 classes" in said
    assert "has 3" in said


def test_data_check_says_what_a_folder_of_ones_own_holds(tmp_path: Path) -> None:
    _pets(tmp_path / "data")
    Path("pets.toml").write_text('layout = "imagefolder"\n')
    result = CliRunner().invoke(app, ["data", "check", "pets.toml", "data", "--deep", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["rows"] == [
        {"part": "", "classes": 3, "expected_classes": 3, "images": 6, "expected_images": None}
    ]


def test_a_corrupted_copy_of_ones_own_data_is_a_suite_of_files(saved, tmp_path: Path) -> None:
    _pets(tmp_path / "pets", size=(64, 64))
    Path("pets.toml").write_text('layout = "imagefolder"\ndirectory = "pets"\nimage_size = 64\n')
    Path("made-c.toml").write_text('layout = "generated"\nclean = "pets.toml"\n')
    command = ("data", "make-corrupted", "--suite", "made-c.toml", "-c", "fog", "--severity", "3", "--out", "made")
    result = CliRunner().invoke(app, [*command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = 'layout = "corruptions"\ndirectory = "made"\nclean = "pets.toml"\nimage_size = 64\nseverities = [3]\n'
    Path("files-c.toml").write_text(text + '[families]\nweather = ["fog"]\n')
    records, run = _run("corrupt", "--model", saved("test_vit", 3), "--suite", "files-c.toml")
    assert set(run.summary["threat"]) == {"clean", "files-c.toml:fog-3"}
    ids = [set(rows["sample_id"]) for _, rows in records.groupby("threat")]
    assert ids[0] == ids[1] == {f"{name}/photo {number}" for name in PETS for number in range(2)}


def test_every_suite_shown_in_the_docs_can_be_read(tmp_path: Path) -> None:
    for name in ("names.txt", "dogs.txt"):
        Path(name).write_text("n02085620\nn02085782\n")
    text = (Path(__file__).parents[2] / "docs" / "add-a-suite.md").read_text()
    blocks = [
        textwrap.dedent(block) for block in re.findall(r"^ *```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]
    assert len(blocks) == 6
    names = ["pets.toml", "pets-c.toml", "cifar10.toml", "cifar10-c.toml", "tiny.toml", "dogs.toml"]
    for name, block in zip(names, blocks, strict=True):
        Path(name).write_text(block)
        assert suite(name).layout in block
    assert suite("cifar10-c.toml").index == tuple(NAMES)


# --- Tiny-ImageNet ---------------------------------------------------------------------------------------------------

TINY = ("n01443537", "n01629819", "n02124075")


def _tiny(root: Path, annotated: bool) -> None:
    """As it is unpacked: train sorted with a folder `images` in each class, val flat, or sorted by a script."""
    lines = []
    for label, wnid in enumerate(TINY):
        (root / "train" / wnid / "images").mkdir(parents=True)
        photograph(label, (64, 64)).save(root / "train" / wnid / "images" / f"{wnid}_0.JPEG")
        for number in range(2):
            name = f"val_{2 * label + number}.JPEG"
            folder = root / "val" / "images" if annotated else root / "val" / wnid / "images"
            folder.mkdir(parents=True, exist_ok=True)
            picture_of(label, 10 * label + number, (64, 64)).save(folder / name, quality=95)
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62")
    if annotated:
        (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(reversed(TINY)) + "\n")


@pytest.mark.parametrize("annotated", [True, False], ids=["val_annotations.txt", "sorted"])
def test_tiny_imagenet_as_it_is_unpacked(saved, tmp_path: Path, annotated: bool) -> None:
    _tiny(tmp_path / "tiny-imagenet-200", annotated)
    Path("tiny.toml").write_text('layout = "imagefolder"\nimage_size = 64\ndirectory = "tiny-imagenet-200"\n')
    records, _ = _run("attack", "--model", saved("test_vit", 3), "--data", "tiny.toml", "--attack", "noise")
    labels = {row.sample_id: row.label for row in records.itertuples()}
    assert labels == {f"{wnid}/val_{2 * label + number}": label for label, wnid in enumerate(TINY) for number in (0, 1)}


def test_the_order_of_tiny_imagenets_classes_may_be_that_of_its_list(saved, tmp_path: Path) -> None:
    _tiny(tmp_path / "tiny", annotated=True)
    Path("tiny.toml").write_text('layout = "imagefolder"\ndirectory = "tiny"\nclasses = "tiny/wnids.txt"\n')
    records, _ = _run("attack", "--model", saved("test_vit", 3), "--data", "tiny.toml", "--attack", "noise")
    assert set(records[records["sample_id"].str.startswith(TINY[0])]["label"]) == {2}


# --- CIFAR -----------------------------------------------------------------------------------------------------------

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _pixels(count: int) -> np.ndarray:
    return np.stack([np.asarray(photograph(number, (32, 32))) for number in range(count)])


def _batches(root: Path, pixels: np.ndarray, labels: list[int]) -> None:
    """As the authors pickled them: with protocol 2, planes of red, green and blue behind one another."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    data = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)
    for name, content in {
        "test_batch": {
            b"batch_label": b"testing",
            b"labels": labels,
            b"data": data,
            b"filenames": [b"x.png"] * len(labels),
        },
        "data_batch_1": {b"labels": [9] * len(labels), b"data": data},
        "batches.meta": {b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072},
    }.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
def test_cifar_as_python_batches(saved, tmp_path: Path, packed: bool) -> None:
    labels = [number % 10 for number in range(12)]
    _batches(tmp_path / "data", _pixels(12), labels)
    place = str(pack_tar(tmp_path / "data", tmp_path / "cifar-10-python.tar")) if packed else "data"
    Path("cifar10.toml").write_text('layout = "cifar"\n')
    records, _ = _run(
        "attack", "--model", saved(SMALL, 10), "--data", "cifar10.toml", "--data-dir", place, "--attack", "noise"
    )
    clean = records[records["threat"] == "clean"].set_index("sample_id")
    assert dict(clean["label"]) == {f"{NAMES[label]}/test_{row:05d}": label for row, label in enumerate(labels)}
    network = _network(SMALL, 10)
    with torch.no_grad():
        images = torch.from_numpy(_pixels(12)).permute(0, 3, 1, 2).float() / 255
        answers = network((images - 0.5) / 0.5).argmax(1).tolist()
    assert [
        int(clean.loc[f"{NAMES[label]}/test_{row:05d}", "prediction"]) for row, label in enumerate(labels)
    ] == answers
    assert set(records["recipe"]) == {"none"}


def _cifar_c(root: Path, labels: list[int]) -> None:
    """Severity s is the clean images darkened by 20 s levels, so that each row says where it came from."""
    root.mkdir(parents=True)
    clean = _pixels(len(labels)).astype(int)
    for name in ("fog", "frost"):
        levels = np.concatenate([(clean - 20 * severity).clip(0, 255) for severity in range(1, 6)])
        np.save(root / f"{name}.npy", levels.astype(np.uint8))
    np.save(root / "labels.npy", np.array(labels * 5))


def test_cifar_c_is_read_from_its_arrays_and_paired_with_clean_cifar(saved, tmp_path: Path) -> None:
    labels = [number % 10 for number in range(12)]
    _batches(tmp_path / "data", _pixels(12), labels)
    _cifar_c(tmp_path / "CIFAR-10-C", labels)
    Path("cifar10.toml").write_text('layout = "cifar"\ndirectory = "data"\nclasses = "cifar10"\n')
    text = 'layout = "cifar-c"\ndirectory = "CIFAR-10-C"\nclean = "cifar10.toml"\nseverities = [1, 2, 3, 4, 5]\n'
    Path("cifar10-c.toml").write_text(text + '[families]\nweather = ["fog", "frost"]\n')
    command = ("corrupt", "--model", saved(SMALL, 10), "--suite", "cifar10-c.toml", "-c", "fog", "--severity", "2")
    records, run = _run(*command)
    assert set(run.summary["threat"]) == {"clean", "cifar10-c.toml:fog-2"}
    assert set(run.summary["n"]) == {12}
    assert records.groupby("sample_id")["label"].nunique().eq(1).all()
    network = _network(SMALL, 10)
    with torch.no_grad():
        images = torch.from_numpy((_pixels(12).astype(int) - 40).clip(0, 255)).permute(0, 3, 1, 2).float() / 255
        answers = network((images - 0.5) / 0.5).argmax(1).tolist()
    fog = records[records["corruption"] == "fog"].set_index("sample_id")["prediction"]
    assert [int(fog[f"{NAMES[label]}/test_{row:05d}"]) for row, label in enumerate(labels)] == answers


def test_cifar_c_in_a_tar_is_mapped_where_it_lies(tmp_path: Path) -> None:
    labels = [number % 10 for number in range(12)]
    _cifar_c(tmp_path / "c", labels)
    archive = pack_tar(tmp_path / "c", tmp_path / "c.tar", "CIFAR-10-C")
    text = 'layout = "cifar-c"\nclasses = "cifar10"\nseverities = [1, 2, 3, 4, 5]\nimages = 12\n'
    Path("c.toml").write_text(text + '[families]\nweather = ["fog", "frost"]\n')
    for place in ("c", str(archive)):
        result = CliRunner().invoke(app, ["data", "check", "c.toml", place, "--deep", "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert [row["images"] for row in json.loads(result.output)["rows"]] == [12] * 10


def test_cifar_as_image_folders(saved, tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "cifar10" / "test" / NAMES[number % 10]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(number, (32, 32)).save(folder / f"{number:04d}.png")
    Path("c.toml").write_text('layout = "imagefolder"\ndirectory = "cifar10"\nimage_size = 32\nrecipe = "none"\n')
    records, _ = _run("attack", "--model", saved(SMALL, 10), "--data", "c.toml", "--attack", "noise")
    assert set(records["label"]) == set(range(10))
    assert set(records["recipe"]) == {"none"}


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("ran"), "code ran"))


def _object_array() -> bytes:
    return pickle.dumps({b"data": np.array([object()], dtype=object), b"labels": [0]}, protocol=2)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": _Evil(), b"labels": [0]}, protocol=2),
        pickle.dumps(print),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 100), np.uint8), b"labels": [0]}, protocol=2),
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\x00\x00.",  # a bytearray of 2^48 bytes
        b"(" * 100_000 + b".",
        b"",
        b"not a pickle",
    ],
    ids=["code", "print", "list", "floats", "label", "counts", "shape", "length", "nested", "empty", "text"],
)
def test_hostile_batches_run_nothing_and_end_in_a_message(tmp_path: Path, content: bytes) -> None:
    _batches(tmp_path / "data", _pixels(2), [0, 1])
    (tmp_path / "data" / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    Path("c.toml").write_text('layout = "cifar"\n')
    assert "test_batch" in _refused("attack", "--model", "deit", "--data", "c.toml", "--data-dir", "data")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fog.npy", b"\x93NUMPY"),
        ("fog.npy", b""),
        ("labels.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
        ("fog.npy", "objects"),
        ("fog.npy", "short"),
        ("labels.npy", "other labels"),
    ],
)
def test_hostile_arrays_end_in_a_message(tmp_path: Path, name: str, content: bytes | str) -> None:
    _cifar_c(tmp_path / "c", [0, 1])
    place = tmp_path / "c" / name
    if content == "objects":
        np.save(place, np.array([_Evil()] * 10), allow_pickle=True)
    elif content == "short":
        place.write_bytes(place.read_bytes()[:-100])
    elif content == "other labels":
        np.save(place, np.arange(10))
    else:
        assert isinstance(content, bytes)
        place.write_bytes(content)
    text = 'layout = "cifar-c"\nclasses = "cifar10"\nseverities = [1, 2, 3, 4, 5]\n[families]\nweather = ["fog"]\n'
    Path("c.toml").write_text(text)
    assert name in _refused("corrupt", "--model", "deit", "--suite", "c.toml", "--data-dir", "c")
    assert not Path("ran").exists()
