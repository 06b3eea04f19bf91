"""Which folder a suite's images are taken from, whose labels they have, and what a folder that is none is called."""

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.check import check_suite
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.suite import Part
from tests.imagenet_trees import build_tree, pack_tar, picture_of

FEW = ("n01440764", "n02007558", "n15075141")  # classes 0, 130 and 999


def _dataset(name: str, directory: Path, part: Part | None = None) -> ImageFiles:
    return index_images(find_suite(suite(name), directory), part)


def _refusal(name: str, directory: Path) -> str:
    with pytest.raises(UserError) as refused:
        _dataset(name, directory)
    assert refused.value.message in _check(name, directory)  # which refuses what every other command refuses
    return str(refused.value)


def _check(name: str, directory: Path) -> list[str]:
    try:
        return [finding.message for finding in check_suite(suite(name), directory).errors]
    except UserError as error:
        return [error.message]


# --- train is never the validation set -------------------------------------------------------------------------------


def _training_root(tmp_path: Path) -> Path:
    """ImageNet as it is first unpacked: train/ sorted, val/ flat."""
    root = tmp_path / "root"
    for wnid in FEW:
        (root / "train" / wnid).mkdir(parents=True)
        picture_of(0).save(root / "train" / wnid / f"{wnid}_17.JPEG")
    (root / "val").mkdir()
    for number in (1, 2, 3):
        picture_of(number).save(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return root


def test_training_images_are_never_taken_for_the_validation_set(tmp_path: Path) -> None:
    root = _training_root(tmp_path)
    said = _refusal("imagenet", root)
    assert "3 image(s) in no class folder" in said
    assert "train is left alone" in said
    assert "LOC_val_solution.csv" in said
    shutil.rmtree(root / "val")
    assert "train is left alone" in _refusal("imagenet", root)
    assert "3 of 3 images are not named like" in _refusal("imagenet", root / "train")


def test_most_names_have_to_be_those_of_the_suite(tmp_path: Path) -> None:
    planted = build_tree(tmp_path / "val", "imagenet", FEW)
    planted[0].path.rename(planted[0].path.with_name("mine.JPEG"))
    assert len(_dataset("imagenet", tmp_path / "val").sample_ids) == 3
    planted[1].path.rename(planted[1].path.with_name("mine.JPEG"))
    said = _refusal("imagenet", tmp_path / "val")
    assert "2 of 3 images are not named like" in said
    assert "docs/add-a-suite.md" in said


# --- labels from a file ----------------------------------------------------------------------------------------------

_TRUTH = {"n01440764/ILSVRC2012_val_00000002", "n02007558/ILSVRC2012_val_00000001", "n15075141/ILSVRC2012_val_00000003"}
_ORDER = (FEW[1], FEW[0], FEW[2])


def _kaggle(folder: Path) -> None:
    rows = [f"ILSVRC2012_val_{number:08d},{wnid} 1 2 3 4 " for number, wnid in enumerate(_ORDER, start=1)]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(reversed(rows)) + "\n")


def _synset_labels(folder: Path) -> None:
    (folder / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(_ORDER) + "\n")


def _devkit(folder: Path) -> None:
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n7\n1000\n")
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    savemat(data / "meta.mat", {"synsets": np.array([(7, FEW[0]), (490, FEW[1]), (1000, FEW[2])], dtype=kind)})


def _map_clsloc(folder: Path) -> None:
    _devkit(folder)
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    (data / "meta.mat").unlink()
    (data / "map_clsloc.txt").write_text(f"{FEW[0]} 7 tench\n{FEW[1]} 490 crane\n{FEW[2]} 1000 toilet_tissue\n")


@pytest.mark.parametrize("label", [_kaggle, _synset_labels, _devkit, _map_clsloc])
@pytest.mark.parametrize("given", ["root", "val", "archive"])
def test_a_flat_validation_folder_takes_its_labels_from_the_publishers_files(tmp_path: Path, label, given) -> None:
    root = _training_root(tmp_path)
    label(root)
    place = {"root": root, "val": root / "val", "archive": root / "ILSVRC2012_img_val.tar"}[given]
    if given == "archive":
        pack_tar(root / "val", place)
        shutil.rmtree(root / "val")
    dataset = _dataset("imagenet", place)
    assert set(dataset.sample_ids) == _TRUTH
    assert {dataset.labels[row] for row in range(3)} == {0, 130, 999}
    assert not dataset.read([0, 1, 2], [_recipe()]).errors
    report = check_suite(suite("imagenet"), place)
    assert report.rows[0].images == 3


def _recipe():
    from robustbench_twicing.spec.models import Recipe

    return Recipe(resize=64, crop=56)


def test_a_flat_folder_has_the_ids_of_the_sorted_one(tmp_path: Path) -> None:
    build_tree(tmp_path / "sorted", "imagenet", FEW)
    (tmp_path / "flat").mkdir()
    lines = []
    for file in sorted((tmp_path / "sorted").rglob("*.JPEG")):
        shutil.copy(file, tmp_path / "flat")
        lines.append(f"{file.name} {file.parent.name}")
    (tmp_path / "flat" / "val_annotations.txt").write_text("\n".join(lines))
    flat, ordered = _dataset("imagenet", tmp_path / "flat"), _dataset("imagenet", tmp_path / "sorted")
    assert (flat.sample_ids, flat.labels, flat.fingerprint) == (ordered.sample_ids, ordered.labels, ordered.fingerprint)


def test_images_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    root = _training_root(tmp_path)
    _kaggle(root)
    picture_of(7).save(root / "val" / "ILSVRC2012_val_00000009.JPEG")
    dataset = _dataset("imagenet", root)
    assert len(dataset.sample_ids) == 3
    assert any("1 image(s) without a label" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001\n", "line 2 has no class"),
        (
            "val_annotations.txt",
            "ILSVRC2012_val_00000001.JPEG n01440764\njust-one\n",
            "line 2 does not hold FILE CLASS",
        ),
        ("val_annotations.txt", "ILSVRC2012_val_00000001.JPEG n99999999\n", "do not name classes"),
        ("val_annotations.txt", "ILSVRC2012_val_00000001.JPEG 1000\n", "do not name classes"),
        ("val_annotations.txt", "another.JPEG n01440764\n", "a line for none of the images"),
        ("synset_labels.txt", "\xff\xfe", "cannot be read"),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n2\n3\n", "neither meta.mat nor map_clsloc.txt"),
        ("synset_labels.txt", "", "do not name classes"),
    ],
)
def test_labels_that_cannot_be_understood_are_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    root = _training_root(tmp_path)
    (root / name).write_bytes(text.encode("latin-1"))
    assert why in _refusal("imagenet", root)


def test_a_damaged_meta_mat_is_a_message(tmp_path: Path) -> None:
    root = _training_root(tmp_path)
    _devkit(root)
    (root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"MATLAB 5.0" + os.urandom(300))
    assert "meta.mat is damaged" in _refusal("imagenet", root)


# --- names that are not UTF-8 ----------------------------------------------------------------------------------------


def _with_a_latin_name(tmp_path: Path) -> Path:
    planted = build_tree(tmp_path / "val", "imagenet", FEW)
    folder = os.fsencode(planted[0].path.parent)
    shutil.copy(planted[0].path, os.fsdecode(folder + b"/caf\xe9.JPEG"))
    os.mkdir(os.fsdecode(os.fsencode(tmp_path / "val") + b"/stra\xdfe"))  # noqa: PTH102 - a name of bytes
    return tmp_path / "val"


def test_names_that_are_not_utf8_make_ids_that_can_be_stored(tmp_path: Path) -> None:
    place = _with_a_latin_name(tmp_path)
    dataset = _dataset("imagenet", place)
    assert "n01440764/caf\\xe9" in dataset.sample_ids
    assert not dataset.read(range(4), [_recipe()]).errors
    json.dumps(dataset.sample_ids).encode()
    report = check_suite(suite("imagenet"), place)
    said = [text for finding in report.findings for text in (finding.message, finding.where, *finding.paths)]
    assert any("caf\\xe9" in text for text in said)
    assert any("stra\\xdfe" in text for text in said)
    " ".join(said).encode()


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    place = _with_a_latin_name(tmp_path)
    picture_of(0).save(place / "n01440764" / "caf\\xe9.JPEG")
    with pytest.raises(UserError, match="two files are sample") as refused:
        _dataset("imagenet", place)
    str(refused.value).encode()


# --- layouts of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (["imagenet2012/5.1.0/imagenet2012-validation.tfrecord-00000-of-00064"], "TensorFlow Datasets"),
        (["val.lmdb/data.mdb"], "LMDB"),
        (["data.mdb", "lock.mdb"], "LMDB"),
        (["val.h5"], "HDF5"),
        (["cifar-10-batches-py/test_batch"], 'layout = "cifar"'),
        (["images/air_freshener/0a.png", "mappings/folder_to_objectnet_label.json"], "ObjectNet"),
        (["imagenet-1k.py", "README.md"], "a data set script"),
    ],
)
def test_layouts_of_others_are_called_by_their_names(tmp_path: Path, files: list[str], word: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    assert re.search(f"what looks like .*{word}", _refusal("imagenet", tmp_path))


def test_webdataset_shards_without_labels_are_called_so(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "imagenet-val-000000.tar", "w") as file:
        for name in ("000000.jpg", "000000.txt"):
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert "WebDataset shards" in _refusal("imagenet", tmp_path)
    assert "WebDataset shards" in _refusal("imagenet", tmp_path / "imagenet-val-000000.tar")


def test_a_table_in_the_place_of_a_suite_of_corruptions_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "val.parquet").write_bytes(b"PAR1" + bytes(64))
    assert "Parquet" in _refusal("imagenet-c", tmp_path)
    assert "Parquet" in _refusal("imagenet-c", tmp_path / "val.parquet")


def test_class_folders_of_ones_own_are_told_which_key_to_write(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        picture_of(0).save(tmp_path / name / "a.jpg")
    assert 'layout = "imagefolder"' in _refusal("imagenet", tmp_path)
