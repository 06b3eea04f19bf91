"""`check_suite` on trees with one thing wrong at a time."""

import os
import shutil
from pathlib import Path

import pytest

from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.check import Report, Row, check_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.suite import Part, SuiteSpec
from tests.imagenet_trees import build_tree, pack_tar, pack_zip, picture_of

SMALL = class_list("imagenet-a")[:4]
PARTS = [Part("fog", severity) for severity in (1, 2)]


def _small(name: str, **changes: object) -> SuiteSpec:
    """The suite with four classes of two images, so that a complete one can be written by a test."""
    small = {"classes": SMALL, "images": 8, "images_per_class": 2}
    if name == "imagenet-c":
        small |= {"families": {"weather": ("fog",)}, "extra_families": {}, "severities": (1, 2)}
    return suite(name).model_copy(update=small | changes)


@pytest.fixture
def val(tmp_path: Path) -> Path:
    build_tree(tmp_path / "val", "imagenet", SMALL, per_class=2)
    return tmp_path / "val"


@pytest.fixture
def corrupted(tmp_path: Path) -> Path:
    build_tree(tmp_path / "c", "imagenet-c", SMALL, per_class=2, parts=PARTS)
    return tmp_path / "c"


def _only_finding(report: Report, severity: str = "error") -> str:
    assert [finding.severity for finding in report.findings] == [severity]
    assert report.ok == (severity == "warning")
    return report.findings[0].message


@pytest.mark.parametrize("deep", [False, True])
def test_a_complete_suite_has_no_finding(tmp_path: Path, val: Path, corrupted: Path, deep: bool) -> None:
    told: list[int] = []
    report = check_suite(_small("imagenet"), val, deep, workers=2, advance=told.append)
    assert report.findings == ()
    assert report.ok
    assert report.rows == (Row("", 4, 4, 8, 8),)
    assert told == [2, 2, 2, 2]
    report = check_suite(_small("imagenet-c"), corrupted, deep)
    assert report.findings == ()
    assert report.rows == (Row("fog/1", 4, 4, 8, 8), Row("fog/2", 4, 4, 8, 8))


def test_archives_are_checked_in_place(tmp_path: Path, val: Path) -> None:
    spec = _small("imagenet")
    for archive in (pack_tar(val, tmp_path / "val.tar", "val"), pack_zip(val, tmp_path / "val.zip")):
        report = check_suite(spec, archive, deep=True)
        assert (report.rows, report.findings) == ((Row("", 4, 4, 8, 8),), ())


def test_missing_and_empty_class_folders(tmp_path: Path, val: Path) -> None:
    shutil.rmtree(val / SMALL[1])
    for file in (val / SMALL[2]).iterdir():
        file.unlink()
    report = check_suite(_small("imagenet"), val)
    assert report.rows == (Row("", 2, 4, 4, 8),)
    assert [finding.message for finding in report.errors] == [
        f"1 class folder(s) missing: {SMALL[1]}",
        f"1 class folder(s) without an image: {SMALL[2]}",
        "4 images, expected 8",
    ]


def test_a_class_with_too_few_images_is_named(tmp_path: Path, val: Path) -> None:
    next((val / SMALL[3]).iterdir()).unlink()
    report = check_suite(_small("imagenet"), val)
    assert report.errors[0].message == f"1 class folder(s) do not hold 2 images: {SMALL[3]} has 1"
    assert report.errors[1].message == "7 images, expected 8"


def test_another_count_is_a_warning_where_published_copies_disagree(tmp_path: Path, val: Path) -> None:
    spec = _small("imagenet", images=9, images_exact=False)
    assert _only_finding(check_suite(spec, val), "warning") == "8 images, expected 9"
    assert not suite("imagenet-sketch").images_exact


def test_strays_are_named_and_change_no_count(tmp_path: Path, val: Path) -> None:
    (val / "n99999999").mkdir()
    (val / SMALL[0] / "Thumbs.db").write_bytes(b"x")
    (val / SMALL[0] / "more").mkdir()
    (val / ".DS_Store").write_bytes(b"hidden, and so no stray")
    report = check_suite(_small("imagenet"), val)
    message = _only_finding(report, "warning")
    assert (
        message == f"3 stray file(s) or folder(s), which are ignored: n99999999, {SMALL[0]}/more, {SMALL[0]}/Thumbs.db"
    )
    assert report.findings[0].paths[0] == f"{val}/n99999999"
    assert report.rows == (Row("", 4, 4, 8, 8),)


def test_two_images_of_one_sample(tmp_path: Path, val: Path) -> None:
    first = min((val / SMALL[0]).iterdir())
    shutil.copy(first, first.with_suffix(".png"))
    report = check_suite(_small("imagenet", images=9, images_per_class=None), val)
    assert "2 image(s) with the name of another but for the ending" in _only_finding(report)


def test_file_names_matter_to_real_labels_and_are_noted_elsewhere(tmp_path: Path, val: Path) -> None:
    first = min((val / SMALL[0]).iterdir())
    first.rename(first.with_name("renamed.JPEG"))
    for name, severity in (("imagenet", "warning"), ("imagenet-real", "error")):
        assert "renamed.JPEG" in _only_finding(check_suite(_small(name), val), severity)


def test_files_named_like_another_suites_are_an_error(tmp_path: Path, val: Path) -> None:
    spec = _small("imagenet-sketch")
    assert "named like those of imagenet" in _only_finding(check_suite(spec, val))


def test_the_classes_of_another_suite_are_an_error(tmp_path: Path) -> None:
    for wnid in class_list("imagenet-r"):
        (tmp_path / wnid).mkdir()
    report = check_suite(suite("imagenet-a"), tmp_path)
    message = _only_finding(report)
    assert "such as n01443537" in message
    assert "they are the classes of imagenet-r" in message
    assert report.rows == (Row("", 0, 200, 0, 7500),)


def test_missing_corruptions_are_errors_and_missing_extras_only_warnings(tmp_path: Path, corrupted: Path) -> None:
    shutil.rmtree(corrupted / "fog" / "2")
    families = {"weather": ("fog", "frost")}
    spec = _small("imagenet-c", families=families, extra_families={"extra": ("saturate",)})
    report = check_suite(spec, corrupted)
    assert [(finding.severity, finding.message) for finding in report.findings] == [
        ("error", "fog is missing at severity 2"),
        ("error", "frost is missing at severity 1, 2"),
        ("warning", "2 of the extra corruptions are missing (saturate/1, saturate/2); no mean needs them"),
    ]
    assert [(row.part, row.images) for row in report.rows] == [
        ("fog/1", 8),
        ("fog/2", 0),
        ("frost/1", 0),
        ("frost/2", 0),
    ]


def test_a_resized_copy_of_imagenet_c_is_noticed_from_one_image(tmp_path: Path, corrupted: Path) -> None:
    for file in (corrupted / "fog" / "1").rglob("*.JPEG"):
        picture_of(0, size=(256, 256)).save(file)
    report = check_suite(_small("imagenet-c"), corrupted)
    assert "256 x 256 pixels, not 224 x 224" in _only_finding(report)
    assert len(check_suite(_small("imagenet-c"), corrupted, deep=True).errors) == 8


def test_only_deep_decodes_images(tmp_path: Path, val: Path) -> None:
    broken = sorted(val.rglob("*.JPEG"))[:3]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:-300])
    broken[2].unlink()
    broken[2].symlink_to(broken[2])
    spec = _small("imagenet")
    assert check_suite(spec, val).ok
    errors = check_suite(spec, val, deep=True, workers=2).errors
    assert [error.paths for error in errors] == [(str(path),) for path in broken]
    for error, reason in zip(errors, ("empty file", "truncated", "symbolic links"), strict=True):
        assert reason in error.message


def test_symlink_circles_neither_hang_nor_count(tmp_path: Path, val: Path) -> None:
    shutil.rmtree(val / SMALL[0])
    (val / SMALL[0]).symlink_to(val / SMALL[0])
    (val / SMALL[1] / "up").symlink_to(val)
    report = check_suite(_small("imagenet"), val)
    assert report.rows == (Row("", 3, 4, 6, 8),)
    messages = " ".join(finding.message for finding in report.findings)
    assert f"missing: {SMALL[0]}" in messages
    assert f"{SMALL[1]}/up" in messages


def test_a_locked_class_folder_is_one_finding_among_others(
    tmp_path: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.scandir

    def denied(path: Path) -> object:
        # Patched, since these tests may run as root, whom no permission stops.
        if Path(path).name == SMALL[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", denied)
    report = check_suite(_small("imagenet"), val)
    assert [error.message for error in report.errors] == [
        f"class folder cannot be read (Permission denied): {SMALL[1]}",
        "6 images, expected 8",
    ]


def test_what_is_no_suite_at_all_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected 200 class folders such as n01498041"):
        check_suite(suite("imagenet-a"), tmp_path)
    with pytest.raises(UserError, match="Nothing at"):
        check_suite(suite("imagenet-a"), tmp_path / "absent")
