"""Suites on disk as data sets: labels by name, stable ids, what is refused and what is only noticed."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
import timm.data
import torch
from PIL import Image

from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.archives import FolderTree
from robustbench_twicing.data.imagenet import ImageFiles, index_images, real_labels
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.suite import Part
from tests.imagenet_trees import LabelReader, build_tree, pack_tar, pack_zip, picture_of

DEIT = Recipe(resize=248, crop=224)
PAPER = Recipe(resize=256, crop=224)
FEW = ("n01440764", "n02007558", "n15075141")  # classes 0, 130 and 999


def _dataset(name: str, directory: Path, part: Part | None = None) -> ImageFiles:
    return index_images(find_suite(suite(name), directory), part)


def _answers(dataset: ImageFiles, recipe: Recipe) -> dict[str, int]:
    batch = dataset.read(range(len(dataset.labels)), [recipe])
    assert not batch.errors
    answers = LabelReader()(batch.images[recipe]).argmax(1).tolist()
    return dict(zip((dataset.sample_ids[position] for position in batch.readable), answers, strict=True))


def _truth(dataset: ImageFiles) -> dict[str, int]:
    return dict(zip(dataset.sample_ids, dataset.labels, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        *("imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a", "imagenet-r", "imagenet-o", "imagenet-c"),
        *("imagenet-c-bar", "imagenet-3dcc", "imagenet-stylized"),
    ],
)
def test_ids_labels_and_pixels_of_each_layout(tmp_path: Path, name: str) -> None:
    corruption = {"imagenet-c": "fog", "imagenet-c-bar": "sparkles", "imagenet-3dcc": "fog_3d"}.get(name)
    part = Part(corruption, 3) if corruption else None
    planted = build_tree(tmp_path, name, per_class=2, parts=[part] if part else None)
    dataset = _dataset(name, tmp_path, part)
    assert dataset.classes == 1000
    assert _truth(dataset) == {image.sample_id: image.label for image in planted}
    assert _answers(dataset, Recipe() if suite(name).image_size else DEIT) == _truth(dataset)


def test_labels_are_those_of_the_index_and_not_of_the_order(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet", FEW, per_class=2)
    assert set(_dataset("imagenet", tmp_path).labels) == {0, 130, 999}


def test_stray_missing_and_hidden_things_shift_no_label(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet", FEW, per_class=2)
    before = _dataset("imagenet", tmp_path)
    for stray in (".git", ".n01440764", "0", "a folder", "n01440764_old", "n99999999", "train"):
        (tmp_path / stray).mkdir()
        picture_of(7).save(tmp_path / stray / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "n02007558" / "thumbnails").mkdir()
    (tmp_path / "n02007558" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "n02007558" / "._ILSVRC2012_val_00006501.JPEG").write_bytes(b"x")
    picture_of(7).save(tmp_path / "on top.jpg")
    after = _dataset("imagenet", tmp_path)
    assert (after.sample_ids, after.labels, after.fingerprint) == (before.sample_ids, before.labels, before.fingerprint)
    shutil.rmtree(tmp_path / "n01440764")
    assert _truth(_dataset("imagenet", tmp_path)).items() < _truth(before).items()


def test_v2_numbers_are_numbers_and_not_sorted_text(tmp_path: Path) -> None:
    wnids = [class_list("imagenet")[label] for label in (2, 10, 100, 999)]
    build_tree(tmp_path / "numbers", "imagenet-v2", wnids)
    build_tree(tmp_path / "wnids", "imagenet-v2", wnids, numbered=False)
    numbers, named = _dataset("imagenet-v2", tmp_path / "numbers"), _dataset("imagenet-v2", tmp_path / "wnids")
    assert set(numbers.labels) == {2, 10, 100, 999}
    assert (numbers.sample_ids, numbers.fingerprint) == (named.sample_ids, named.fingerprint)
    (tmp_path / "numbers" / "002").mkdir()
    with pytest.raises(UserError, match="two folders of class"):
        _dataset("imagenet-v2", tmp_path / "numbers")


@pytest.mark.parametrize("families", [False, True], ids=["flat", "by family"])
@pytest.mark.parametrize("above", ["", "ImageNet-C"])
def test_both_layouts_of_imagenet_c(tmp_path: Path, families: bool, above: str) -> None:
    parts = [Part("gaussian_noise", 1), Part("fog", 5), Part("saturate", 2)]
    build_tree(tmp_path / above, "imagenet-c", FEW, parts=parts, families=families)
    found = find_suite(suite("imagenet-c"), tmp_path)
    assert set(found.roots) == set(parts)
    assert len(found.missing) == 95 - 3
    for part in parts:
        assert len(index_images(found, part).sample_ids) == 3
    with pytest.raises(UserError, match="no fog/1"):
        index_images(found, Part("fog", 1))


def test_a_photograph_has_one_id_in_imagenet_and_in_every_corrupted_copy(tmp_path: Path) -> None:
    parts = [Part("fog", 1), Part("frost", 5)]
    build_tree(tmp_path / "val", "imagenet", FEW, per_class=3)
    build_tree(tmp_path / "c", "imagenet-c", FEW, per_class=3, parts=parts)
    clean = _dataset("imagenet", tmp_path / "val")
    for part in parts:
        assert _dataset("imagenet-c", tmp_path / "c", part).sample_ids == clean.sample_ids


def test_any_letter_case_and_kind_of_ending(tmp_path: Path) -> None:
    folder = tmp_path / "n01440764"
    folder.mkdir()
    for name in ("a.JPEG", "b.jpg", "c.Png", "d.WEBP", "e.tif"):
        picture_of(0).save(folder / name)
    assert set(_dataset("imagenet-sketch", tmp_path).sample_ids) == {f"n01440764/{stem}" for stem in "abcde"}


def test_archives_give_the_same_data_set_as_the_folder(tmp_path: Path) -> None:
    build_tree(tmp_path / "a", "imagenet-a", per_class=2)
    folder = _dataset("imagenet-a", tmp_path / "a")
    for archive in (
        pack_tar(tmp_path / "a", tmp_path / "a.tar", inside="imagenet-a"),
        pack_zip(tmp_path / "a", tmp_path / "a.zip"),
    ):
        packed = _dataset("imagenet-a", archive)
        assert (packed.sample_ids, packed.labels, packed.fingerprint) == (
            folder.sample_ids,
            folder.labels,
            folder.fingerprint,
        )
        assert torch.equal(packed.read([3], [DEIT]).images[DEIT], folder.read([3], [DEIT]).images[DEIT])


def test_imagenet_c_as_it_is_downloaded_one_tar_for_each_family(tmp_path: Path) -> None:
    parts = [Part("gaussian_noise", 1), Part("fog", 5)]
    build_tree(tmp_path / "c", "imagenet-c", FEW, parts=parts, families=True)
    (tmp_path / "tars").mkdir()
    for family in ("noise", "weather"):
        pack_tar(tmp_path / "c" / family, tmp_path / "tars" / f"{family}.tar")
    found = find_suite(suite("imagenet-c"), tmp_path / "tars")
    assert set(found.roots) == set(parts)
    assert _answers(index_images(found, parts[1]), Recipe()) == dict(
        zip([f"{wnid}/ILSVRC2012_val_{label * 50 + 1:08d}" for wnid, label in zip(FEW, (0, 130, 999), strict=True)],
            (0, 130, 999), strict=True)
    )  # fmt: skip


def test_the_folder_above_is_enough_and_val_is_told_from_train(tmp_path: Path) -> None:
    for split in ("train", "val"):
        build_tree(tmp_path / split, "imagenet", FEW, per_class=2 if split == "val" else 1)
    assert len(_dataset("imagenet", tmp_path).sample_ids) == 6
    (tmp_path / "val").rename(tmp_path / "one")
    assert len(_dataset("imagenet", tmp_path).sample_ids) == 6
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    with pytest.raises(UserError, match=r"several data sets \(one, other\)") as refused:
        _dataset("imagenet", tmp_path)
    assert "--data-dir" in refused.value.hint


def test_a_batch_holds_each_recipe_once_and_timms_pixels(tmp_path: Path) -> None:
    planted = build_tree(tmp_path, "imagenet", FEW, per_class=2)
    dataset = _dataset("imagenet", tmp_path)
    batch = dataset.read([4, 0, 2], [DEIT, PAPER, DEIT])
    assert batch.positions == batch.readable == (4, 0, 2)
    assert set(batch.images) == {DEIT, PAPER}
    paths = {image.sample_id: image.path for image in planted}
    for recipe, ratio in ((DEIT, 0.9), (PAPER, 0.875)):
        transform = timm.data.create_transform(
            224, is_training=False, crop_pct=ratio, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
        )
        for row, position in zip(batch.images[recipe], batch.positions, strict=True):
            assert torch.equal(row, transform(Image.open(paths[dataset.sample_ids[position]]).convert("RGB")))


def test_the_same_two_hundred_classes_of_val(tmp_path: Path) -> None:
    a = suite("imagenet-a")
    inside, outside = class_list("imagenet-a")[:2], class_list("imagenet")[:2]
    build_tree(tmp_path, "imagenet", (*inside, *outside), per_class=2)
    val = _dataset("imagenet", tmp_path)
    pair = val.of_classes(a.mask, a.name)
    assert pair.name == "imagenet@imagenet-a"
    assert set(pair.labels) == {class_list("imagenet").index(wnid) for wnid in inside}
    assert pair.classes == 1000
    assert pair.fingerprint != val.fingerprint
    assert _answers(pair, DEIT) == _truth(pair)
    assert list(pair.sample_ids) == [sample for sample in val.sample_ids if sample in set(pair.sample_ids)]


def test_real_labels_drop_the_unlabelled_and_accept_every_class_seen(tmp_path: Path) -> None:
    real = real_labels()
    assert len(real) == 50_000
    assert sum(map(bool, real.values())) == 46_837
    # timm's own reading of the same file, by file name
    theirs = timm.data.RealLabelsImagenet(range(50_000)).real_labels
    assert theirs["ILSVRC2012_val_00000002.JPEG"] == list(real["ILSVRC2012_val_00000002"]) == [970, 795]
    assert not real["ILSVRC2012_val_00000001"]
    build_tree(tmp_path, "imagenet-real", FEW[:1], per_class=3)
    dataset = _dataset("imagenet-real", tmp_path)
    assert dict(zip(dataset.sample_ids, dataset.accepted or (), strict=True)) == {
        "n01440764/ILSVRC2012_val_00000002": (970, 795),
        "n01440764/ILSVRC2012_val_00000003": (230, 231),
    }
    (tmp_path / "n01440764" / "ILSVRC2012_val_00000002.JPEG").rename(tmp_path / "n01440764" / "renamed.JPEG")
    with pytest.raises(UserError, match="original file names"):
        _dataset("imagenet-real", tmp_path)


def test_the_fingerprint_sees_names_labels_and_lengths(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet", FEW, per_class=2)
    first = tmp_path / "n01440764" / "ILSVRC2012_val_00000001.JPEG"
    seen = {_dataset("imagenet", tmp_path).fingerprint}
    assert seen == {_dataset("imagenet", tmp_path).fingerprint}
    first.write_bytes(first.read_bytes() + b"\0")
    seen.add(_dataset("imagenet", tmp_path).fingerprint)
    first.rename(tmp_path / "n02007558" / first.name)
    seen.add(_dataset("imagenet", tmp_path).fingerprint)
    (tmp_path / "n02007558" / first.name).unlink()
    seen.add(_dataset("imagenet", tmp_path).fingerprint)
    assert len(seen) == 4


def test_unreadable_images_are_errors_of_the_batch_that_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "n01440764"
    build_tree(tmp_path, "imagenet", FEW[:1], per_class=7)
    files = sorted(folder.iterdir())
    files[0].write_bytes(b"")
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) // 2])
    files[2].unlink()
    files[2].symlink_to(files[2])  # a link to itself
    Image.new("1", (10_000, 9_000)).save(files[3], "PNG")  # 90 million pixels in 14 kB
    Image.new("RGB", (1, 60_000)).save(files[4], "PNG")
    original = FolderTree.read

    def denied(tree: FolderTree, path: str) -> bytes:
        # Patched, since these tests may run as root, whom no permission stops.
        if path.endswith(files[5].name):
            raise PermissionError(13, "Permission denied", path)
        return original(tree, path)

    monkeypatch.setattr(FolderTree, "read", denied)
    dataset = _dataset("imagenet", tmp_path)
    batch = dataset.read(range(7), [DEIT])
    why = {dataset.sample_ids[position].rpartition("/")[2]: message for position, message in batch.errors.items()}
    reasons = ("empty file", "truncated", "symbolic links", "too large", "too elongated", "Permission denied")
    for file, reason in zip(files, reasons, strict=False):
        assert why[file.stem].startswith(f"{file}: ")
        assert reason in why[file.stem]
    assert [dataset.sample_ids[position] for position in batch.readable] == [f"n01440764/{files[6].stem}"]
    assert batch.images[DEIT].shape == (1, 3, 224, 224)
    assert len(dataset.read(list(batch.errors), [DEIT]).images[DEIT]) == 0


def test_an_image_of_the_wrong_size_in_imagenet_c_is_an_error_and_not_resized(tmp_path: Path) -> None:
    part = Part("fog", 1)
    planted = build_tree(tmp_path, "imagenet-c", FEW, parts=[part])
    picture_of(1, size=(256, 224)).save(planted[0].path)
    batch = _dataset("imagenet-c", tmp_path, part).read(range(3), [Recipe()])
    assert list(batch.errors.values()) == [f"{planted[0].path}: 256 x 224 pixels, not 224 x 224"]
    assert batch.images[Recipe()].shape == (2, 3, 224, 224)


def test_a_recipe_without_a_crop_is_refused_where_sizes_differ(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet", FEW)
    with pytest.raises(UserError, match="many sizes"):
        _dataset("imagenet", tmp_path).read([0], [Recipe()])


# --- the wrong folder --------------------------------------------------------------------------------------------


def _refusal(name: str, directory: Path, part: Part | None = None) -> str:
    with pytest.raises(UserError) as refused:
        _dataset(name, directory, part)
    assert refused.value.hint
    return refused.value.message


def test_a_folder_that_is_no_data_set_says_what_was_found_and_expected(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    message = _refusal("imagenet-a", tmp_path)
    assert "expected 200 class folders such as n01498041" in message
    assert "found 2 folder(s) (images, labels)" in message
    message = _refusal("imagenet-c", tmp_path)
    assert "expected folders such as gaussian_noise/1/n01440764" in message
    assert "found no folder and no image" in _refusal("imagenet-r", tmp_path / "images")


def test_imagenets_own_flat_archive_says_that_labels_come_from_folders(tmp_path: Path) -> None:
    for number in (1, 2):
        picture_of(number).save(tmp_path / f"ILSVRC2012_val_0000000{number}.JPEG")
    with pytest.raises(UserError, match=r"found 2 image\(s\)") as refused:
        _dataset("imagenet", tmp_path)
    assert "sort the images into class folders" in refused.value.hint
    with pytest.raises(UserError, match=r"found 2 image\(s\)"):
        _dataset("imagenet", pack_tar(tmp_path, tmp_path.parent / f"{tmp_path.name}.tar"))


def _folders(root: Path, wnids: tuple[str, ...], file: str = "x.jpg") -> Path:
    for wnid in wnids:
        (root / wnid).mkdir(parents=True)
    picture_of(0).save(root / wnids[0] / file, "JPEG")
    return root


def test_another_suites_classes_are_refused(tmp_path: Path) -> None:
    val = _folders(tmp_path / "val", class_list("imagenet"), "ILSVRC2012_val_00000001.JPEG")
    renditions = _folders(tmp_path / "r", class_list("imagenet-r"))
    assert "found 1,000 classes, 800 of which do not belong to it (such as n01440764)" in _refusal("imagenet-a", val)
    message = _refusal("imagenet-a", renditions)
    assert "114 of which do not belong" in message
    assert "they are the classes of imagenet-r" in message
    assert "they are the classes of imagenet-r" in _refusal("imagenet", renditions)


def test_another_suites_file_names_are_refused(tmp_path: Path) -> None:
    val = _folders(tmp_path / "val", class_list("imagenet"), "ILSVRC2012_val_00000001.JPEG")
    assert "named like those of imagenet" in _refusal("imagenet-sketch", val)
    assert "named like those of imagenet" in _refusal("imagenet-v2", val)


def test_one_corruption_alone_is_not_imagenet_c(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet-c", FEW, parts=[Part("fog", 1), Part("fog", 2)])
    assert "found 2 folder(s) (1, 2)" in _refusal("imagenet-c", tmp_path / "fog")


def test_a_corruption_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet-c", FEW, parts=[Part("fog", 1)])
    build_tree(tmp_path, "imagenet-c", FEW, parts=[Part("fog", 1)], families=True)
    assert "holds fog twice: fog and weather/fog" in _refusal("imagenet-c", tmp_path)


def test_class_folders_without_images_are_no_data_set(tmp_path: Path) -> None:
    for wnid in class_list("imagenet-a"):
        (tmp_path / wnid).mkdir()
    (tmp_path / class_list("imagenet-a")[0] / "notes.txt").write_text("hello")
    assert "200 class folders of suite 'imagenet-a' and no image in any" in _refusal("imagenet-a", tmp_path)


def test_an_incomplete_suite_can_be_used_and_says_so(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet-a", per_class=2)
    (tmp_path / class_list("imagenet-a")[3]).mkdir()
    warnings = " ".join(_dataset("imagenet-a", tmp_path).warnings)
    assert f"no image in 1 class folder(s): {class_list('imagenet-a')[3]}" in warnings
    assert "images of 3 classes; the complete suite has 200" in warnings
    assert "6 images; the complete suite has 7,500" in warnings


def test_a_complete_suite_warns_of_nothing(tmp_path: Path) -> None:
    spec = suite("imagenet-a").model_copy(update={"images": 200})
    for wnid in class_list("imagenet-a"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "a.jpg").write_bytes(b"never decoded")
    assert index_images(find_suite(spec, tmp_path)).warnings == ()


def test_two_files_of_one_sample_are_refused(tmp_path: Path) -> None:
    build_tree(tmp_path, "imagenet", FEW)
    picture_of(0).save(tmp_path / "n01440764" / "ILSVRC2012_val_00000001.png")
    message = _refusal("imagenet", tmp_path)
    assert "sample n01440764/ILSVRC2012_val_00000001" in message
    assert "ILSVRC2012_val_00000001.png" in message


def test_an_archive_that_holds_a_file_twice_is_refused(tmp_path: Path) -> None:
    build_tree(tmp_path / "val", "imagenet", FEW)
    archive = pack_tar(tmp_path / "val", tmp_path / "val.tar")
    with tarfile.open(archive, "a") as file:
        file.add(tmp_path / "val" / FEW[0], f"./{FEW[0]}")
    assert "two files are sample n01440764/ILSVRC2012_val_00000001" in _refusal("imagenet", archive)


def test_symlinked_class_folders_are_followed_and_circles_do_not_hang(tmp_path: Path) -> None:
    build_tree(tmp_path / "real", "imagenet", FEW, per_class=2)
    linked = tmp_path / "linked"
    linked.mkdir()
    for wnid in FEW:
        (linked / wnid).symlink_to(tmp_path / "real" / wnid)
    (tmp_path / "real" / FEW[0] / "up").symlink_to(tmp_path / "real")
    (linked / "n02119789").symlink_to(linked / "n02119789")
    (linked / "again").symlink_to(linked)
    assert len(_dataset("imagenet", linked).sample_ids) == 6


def test_a_class_folder_without_permission_stops_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tree(tmp_path, "imagenet", FEW)
    original = os.scandir

    def denied(path: Path) -> object:
        if Path(path).name == FEW[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert f"{tmp_path / FEW[1]} cannot be read: Permission denied" in _refusal("imagenet", tmp_path)


def test_one_image_too_many_is_not_called_an_incomplete_suite(tmp_path):
    for number in range(5):
        folder = tmp_path / "data" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture_of(number).save(folder / f"{number}.png")
    (tmp_path / "own.toml").write_text('layout = "imagefolder"\nimages = 4\n')
    found = find_suite(suite(str(tmp_path / "own.toml")), tmp_path / "data")
    (warning,) = index_images(found).warnings
    assert warning.endswith("5 images; 1 more than the suite's 4")
