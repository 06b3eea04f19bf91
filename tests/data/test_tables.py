"""Pictures in Parquet and Arrow files and in shards of WebDataset are the same data set as in class folders."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.check import check_suite
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe
from tests.imagenet_trees import build_tree, picture_of

FEW = ("n01440764", "n02007558", "n15075141")  # classes 0, 130 and 999
RECIPE = Recipe(resize=48, crop=32, interpolation="bicubic")


def _dataset(name: str, directory: Path) -> ImageFiles:
    return index_images(find_suite(suite(name), directory))


def _features(names: Sequence[str]) -> dict[bytes, bytes]:
    """What datasets 4 writes into a schema."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def _table(rows: Sequence[tuple[bytes | None, str | None, Any]], names: Sequence[str] = ()) -> pa.Table:
    table = pa.table({"image": [{"bytes": b, "path": p} for b, p, _ in rows], "label": [label for _, _, label in rows]})
    return table.replace_schema_metadata(_features(names)) if names else table


def _jpeg(shown: int, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    picture_of(shown, number).save(buffer, "JPEG")
    return buffer.getvalue()


def _as_parquet(table: pa.Table, folder: Path, split: str) -> None:
    half = len(table) // 2
    for part, rows in enumerate((table.slice(0, half), table.slice(half))):
        file = folder / "data" / f"{split}-{part:05d}-of-00002.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, file, row_group_size=2)


def _as_arrow(table: pa.Table, folder: Path, split: str) -> None:
    file = folder / split / "data-00000-of-00001.arrow"
    file.parent.mkdir(parents=True)
    new = pa.ipc.new_stream if split == "validation" else pa.ipc.new_file
    with pa.OSFile(str(file), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("write", [_as_parquet, _as_arrow])
def test_imagenet_as_hugging_face_has_it_is_imagenet_in_folders(
    tmp_path: Path, write: Callable[[pa.Table, Path, str], None]
) -> None:
    planted = build_tree(tmp_path / "folders", "imagenet", FEW)
    rows = [
        (one.path.read_bytes(), f"{one.sample_id.partition('/')[2]}_{one.sample_id.partition('/')[0]}.JPEG", one.label)
        for one in reversed(planted)
    ]
    names = [f"thing {number}, such as {wnid}" for number, wnid in enumerate(class_list("imagenet"))]
    write(_table(rows, names), tmp_path / "hub", "validation")
    write(_table([(_jpeg(1), "ILSVRC2012_test_00000001.JPEG", -1)], names), tmp_path / "hub", "test")
    write(_table([(_jpeg(1), "n01440764_1_n01440764.JPEG", 0)], names), tmp_path / "hub", "train")
    read, known = _dataset("imagenet", tmp_path / "hub"), _dataset("imagenet", tmp_path / "folders")
    assert (read.sample_ids, read.labels) == (known.sample_ids, known.labels)
    everything = range(len(read.labels))
    assert torch.equal(*(one.read(everything, [RECIPE]).images[RECIPE] for one in (read, known)))
    report = check_suite(suite("imagenet"), tmp_path / "hub", deep=True, workers=2)
    assert [row.images for row in report.rows] == [len(planted)]
    assert not any("row(s)" in finding.message for finding in report.findings)


def _two_splits(folder: Path, names: Sequence[str], file: str) -> None:
    for number, split in enumerate(("validation", "test")):
        rows = [(_jpeg(0), f"{file}{n}.JPEG", n % 2) for n in (2 * number, 2 * number + 1)]
        _as_parquet(_table(rows, names), folder, split)


def test_a_test_split_that_has_labels_does_not_take_the_place_of_the_validation_set(tmp_path: Path) -> None:
    _two_splits(tmp_path, class_list("imagenet"), "ILSVRC2012_val_0000000")
    assert _dataset("imagenet", tmp_path).files == ("ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00000001.JPEG")


def test_of_two_splits_that_might_be_meant_one_has_to_be_named(tmp_path: Path) -> None:
    _two_splits(tmp_path, ("cat", "dog"), "pet")
    with pytest.raises(UserError, match="holds several data sets"):
        _dataset(f"folder:{tmp_path}", tmp_path)
    one = tmp_path / "data" / "test-00001-of-00002.parquet"
    assert _dataset(f"folder:{one}", one).sample_ids == ("dog/pet3",)
    mine = tmp_path / "mine.toml"
    mine.write_text('layout = "imagefolder"\nfolders = ["test"]\n')
    assert sorted(_dataset(str(mine), tmp_path).sample_ids) == ["cat/pet2", "dog/pet3"]


def test_classes_of_ones_own_keep_the_order_of_the_labels(tmp_path: Path) -> None:
    rows = [(_jpeg(number), "image.png", label) for number, label in enumerate((1, 0, 2, 2))]
    pq.write_table(_table(rows, ("zebra", "ant/eater", "cat")), tmp_path / "0000.parquet")
    read = _dataset(f"folder:{tmp_path}", tmp_path)
    found = dict(zip(read.sample_ids, read.labels, strict=True))
    assert found == {"zebra/00000001": 0, "ant_eater/00000000": 1, "cat/00000002": 2, "cat/00000003": 2}
    assert read.classes == 3


@pytest.mark.parametrize(
    ("labels", "classes"), [((10, 2, 0), 11), (("b", "a", "b"), 2)], ids=["numbers without names", "names"]
)
def test_labels_without_a_list_of_classes_are_in_order(tmp_path: Path, labels: Sequence[Any], classes: int) -> None:
    pq.write_table(_table([(_jpeg(0), None, label) for label in labels]), tmp_path / "some.parquet")
    read = _dataset(f"folder:{tmp_path}", tmp_path)
    wanted = labels if isinstance(labels[0], int) else [sorted(set(labels)).index(label) for label in labels]
    assert {int(name.partition("/")[2]): label for name, label in zip(read.sample_ids, read.labels, strict=True)} == (
        dict(enumerate(wanted))
    )
    assert read.classes == classes


def test_bytes_alone_are_images_and_a_row_without_any_is_a_failed_sample(tmp_path: Path) -> None:
    table = pa.table({"img": [_jpeg(0), None, b"junk"], "label": pa.array([0, 1, None], pa.int8())})
    pq.write_table(table, tmp_path / "some.parquet")
    read = _dataset(f"folder:{tmp_path}", tmp_path)
    batch = read.read((0, 1), [RECIPE])
    assert len(batch.readable) == 1
    (why,) = batch.errors.values()
    assert "some.parquet: row 1: the row holds no image" in why
    assert read.tree.left_out == ("1 row(s) without a label",)


def _other_order(folder: Path) -> None:
    rows = [(_jpeg(0), "ILSVRC2012_val_00000001_n02007558.JPEG", 0)]
    pq.write_table(_table(rows, [f"thing {number}" for number in range(1000)]), folder / "validation.parquet")


def _few_classes(folder: Path) -> None:
    pq.write_table(_table([(_jpeg(0), "a.jpg", 0)], ["cat", "dog"]), folder / "validation.parquet")


def _large(folder: Path) -> None:
    pq.write_table(_table([(_jpeg(0), "a.jpg", 1000)]), folder / "validation.parquet")


def _paths_only(folder: Path) -> None:
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [0]}), folder / "validation.parquet")


def _no_labels(folder: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a cat"]}), folder / "validation.parquet")


def _many_labels(folder: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "label": [[0, 1]]}), folder / "validation.parquet")


def _cut(folder: Path) -> None:
    _few_classes(folder)
    file = folder / "validation.parquet"
    file.write_bytes(file.read_bytes()[:-200])


def _empty(folder: Path) -> None:
    (folder / "data-00000-of-00001.arrow").write_bytes(b"")


def _two_lists(folder: Path) -> None:
    _few_classes(folder)
    pq.write_table(_table([(_jpeg(0), "a.jpg", 0)], ["dog", "cat"]), folder / "validation-1.parquet")


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (_other_order, "named ILSVRC2012_val_00000001_n02007558.JPEG, and its label stands for n01440764"),
        (_few_classes, "names 2 classes"),
        (_large, "the label 1000, and there are 1,000 classes"),
        (_paths_only, "no bytes of image files"),
        (_no_labels, "holds the labels cannot be told"),
        (_many_labels, "holds list<"),
        (_cut, "cannot be read"),
        (_empty, "cannot be read"),
        (_two_lists, "name different classes"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_by_name(tmp_path: Path, write: Callable[[Path], None], why: str) -> None:
    write(tmp_path)
    with pytest.raises(UserError) as refused:
        _dataset("imagenet", tmp_path)
    assert why in refused.value.message
    assert str(tmp_path) in refused.value.message


def test_fifty_thousand_folders_of_images_and_more_are_no_classes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(50_001):
            archive.writestr(f"c{number:06d}/a.jpg", b"")
    with pytest.raises(UserError, match=r"holds 50,001 folders of images \(c000000, …\)"):
        _dataset(f"folder:{tmp_path / 'many.zip'}", tmp_path / "many.zip")


# --- WebDataset ------------------------------------------------------------------------------------------------------


def _shard(file: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_shards_are_read_in_place_and_those_to_train_on_are_left_alone(tmp_path: Path) -> None:
    planted = build_tree(tmp_path / "folders", "imagenet", FEW)
    (tmp_path / "shards").mkdir()
    for shard in (0, 1):
        members = []
        for one in planted[shard::2]:
            key = one.sample_id.partition("/")[2]
            said = str(one.label).encode() if shard else json.dumps({"label": one.label, "w": 1}).encode()
            members += [(f"{key}.jpg", one.path.read_bytes()), (f"{key}.{'cls' if shard else 'json'}", said)]
        _shard(tmp_path / "shards" / f"imagenet1k-validation-0{shard}.tar", members)
    _shard(tmp_path / "shards" / "imagenet1k-train-0000.tar", [("n1_1.jpg", _jpeg(0)), ("n1_1.cls", b"0")])
    read, known = _dataset("imagenet", tmp_path / "shards"), _dataset("imagenet", tmp_path / "folders")
    assert (read.sample_ids, read.labels, read.sizes) == (known.sample_ids, known.labels, known.sizes)
    everything = range(len(read.labels))
    assert torch.equal(*(one.read(everything, [RECIPE]).images[RECIPE] for one in (read, known)))


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("a.jpg", b"x"), ("a.cls", b"")], "holds no label"),
        ([("a.jpg", b"x"), ("a.json", b"{")], "cannot be read"),
        ([("a.jpg", b"x"), ("a.json", b'{"caption": "a cat"}')], "holds no label"),
        ([("a.jpg", b"x"), ("a.cls", b"1000")], "the label 1000, and there are 1,000 classes"),
        ([("a.jpg", b"x"), ("a.cls", b"0"), ("a.jpg", b"y")], "cannot be told from the other"),
    ],
)
def test_shards_without_sense_are_refused(tmp_path: Path, members: Sequence[tuple[str, bytes]], why: str) -> None:
    _shard(tmp_path / "val-0.tar", members)
    with pytest.raises(UserError) as refused:
        _dataset("imagenet", tmp_path)
    assert why in refused.value.message


# --- written by the libraries themselves -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::Warning")  # of what pickles there
def test_what_hugging_faces_datasets_writes_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["zebra", "ant"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [picture_of(number) for number in range(5)], "label": [1, 0, 1, 1, 0]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(tmp_path / "a" / "data" / "validation-00000-of-00001.parquet")
    datasets.DatasetDict({"validation": made, "train": made}).save_to_disk(str(tmp_path / "b"))
    for folder in (tmp_path / "a", tmp_path / "b"):
        read = _dataset(f"folder:{folder}", folder)
        assert sorted(read.labels) == sorted(rows["label"])
        assert {name.partition("/")[0]: label for name, label in zip(read.sample_ids, read.labels, strict=True)} == {
            "zebra": 0,
            "ant": 1,
        }
        assert len(read.read(range(5), [RECIPE]).readable) == 5


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "mine-000000.tar")) as writer:
        for number in range(4):
            writer.write({"__key__": f"sample{number:06d}", "jpg": picture_of(number), "cls": number % 2})
    read = _dataset(f"folder:{tmp_path}", tmp_path)
    assert dict(zip(read.sample_ids, read.labels, strict=True)) == {
        f"{number % 2}/sample{number:06d}": number % 2 for number in range(4)
    }
    assert len(read.read(range(4), [RECIPE]).readable) == 4
