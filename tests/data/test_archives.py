"""Archives read in place, against the standard library and against the folder they were packed from."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from robustbench_twicing.data.archives import ArchiveTree, FolderTree, Tree, join, open_tree
from robustbench_twicing.errors import UserError
from tests.imagenet_trees import pack_tar, pack_zip

LONG = "n01498041/" + "a very long name that no plain tar header can hold " * 4 + ".jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    contents = {
        "n01440764/b.JPEG": b"bb" * 700,
        "n01440764/a.JPEG": b"a",
        "n01440764/empty.jpg": b"",
        "n01498041/größe – 1.jpg": bytes(range(256)) * 5,
        LONG: b"long",
        "n01498041/" + "x" * 120 + "/deep.png": b"prefix",
        "readme.txt": b"hello",
        ".hidden": b"",
        "n01440764/._b.JPEG": b"left by macOS",
        ".cache/x.jpg": b"x",
    }
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "n01531178").mkdir()
    return root


def _everything(tree: Tree, folder: str = "") -> dict[str, bytes | None]:
    folders, files = tree.listing(folder)
    found: dict[str, bytes | None] = {join(folder, name): tree.read(join(folder, name)) for name in files}
    for name in folders:
        found |= {join(folder, name): None} | _everything(tree, join(folder, name))
    return found


def _packed(folder: Path, kind: str) -> Path:
    archive = folder.parent / f"packed.{kind.rpartition(' ')[2]}"
    formats = {"gnu tar": tarfile.GNU_FORMAT, "pax tar": tarfile.PAX_FORMAT, "ustar tar": tarfile.USTAR_FORMAT}
    if kind in formats:
        return pack_tar(folder, archive, kind=formats[kind])
    method = zipfile.ZIP_STORED if kind == "stored zip" else zipfile.ZIP_DEFLATED
    return pack_zip(folder, archive, method=method)


@pytest.mark.parametrize("kind", ["gnu tar", "pax tar", "ustar tar", "stored zip", "deflated zip"])
def test_an_archive_shows_the_folder_it_was_packed_from(folder: Path, kind: str) -> None:
    if kind == "ustar tar":
        (folder / LONG).unlink()  # more than 256 characters: this format cannot hold it
    expected = _everything(FolderTree(folder))
    assert {"n01440764/b.JPEG", "n01531178", "readme.txt"} < expected.keys()
    assert not [path for path in expected if ".hidden" in path or ".cache" in path or "._b" in path]
    archive = _packed(folder, kind)
    assert _everything(open_tree(archive)) == expected
    assert open_tree(archive).size("n01440764/b.JPEG") == 1400


def test_threads_read_the_same_archive_at_once(folder: Path) -> None:
    tree = open_tree(pack_tar(folder, folder.parent / "t.tar"))
    paths = ["n01440764/a.JPEG", "n01440764/b.JPEG", LONG] * 200
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(tree.read, paths))
    assert contents == [(folder / path).read_bytes() for path in paths]


def test_a_folder_of_archives_is_one_tree(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    pack_tar(folder / "n01440764", home / "one.tar", inside="noise/gaussian_noise")
    pack_zip(folder / "n01498041", home / "two.zip", inside="noise/shot_noise")
    (home / "readme.txt").write_text("hello")
    tree = open_tree(home)
    assert tree.listing("noise").folders == ("gaussian_noise", "shot_noise")
    assert tree.read("noise/gaussian_noise/a.JPEG") == b"a"
    assert tree.read("noise/shot_noise/größe – 1.jpg") == bytes(range(256)) * 5
    assert tree.where("noise/gaussian_noise/a.JPEG") == f"{home}/one.tar: noise/gaussian_noise/a.JPEG"


def test_folders_win_over_archives_beside_them(folder: Path) -> None:
    (folder / "left over.tar").write_bytes(b"not even a tar")
    assert "n01440764" in open_tree(folder).listing("").folders


def test_a_tar_of_more_than_eight_gigabytes_is_described_by_binary_numbers(tmp_path: Path) -> None:
    size = 9 * 2**30
    member = tarfile.TarInfo("n01440764/huge.jpg")
    member.size = size
    with (tmp_path / "huge.tar").open("wb") as file:  # sparse: takes no space on disk
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + size)
        file.seek(512 + size)
        after = tarfile.TarInfo("n01440764/after.jpg")
        after.size = 3
        file.write(after.tobuf(tarfile.GNU_FORMAT) + b"end".ljust(512, b"\0") + bytes(1024))
    tree = ArchiveTree(tmp_path, [tmp_path / "huge.tar"])
    assert tree.size("n01440764/huge.jpg") == size
    assert tree.read("n01440764/after.jpg") == b"end"


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_an_archive_cut_short_is_refused(folder: Path, ending: str, kept: float) -> None:
    archive = _packed(folder, f"gnu {ending}" if ending == "tar" else f"stored {ending}")
    content = archive.read_bytes()
    content = content.rstrip(b"\0") if ending == "tar" else content
    archive.write_bytes(content[: int(len(content) * kept) | 1])
    with pytest.raises(UserError, match="damaged or cut short"):
        open_tree(archive)


def test_a_tar_with_garbage_inside_is_refused_saying_where(folder: Path) -> None:
    archive = _packed(folder, "gnu tar")
    content = bytearray(archive.read_bytes())
    content[1024:1536] = b"x" * 512
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"no member begins at byte [\d,]+"):
        open_tree(archive)


@pytest.mark.parametrize("record", [b"x path=a\n", b"0 path=a\n", b"99"])
def test_a_malformed_extended_header_is_refused(tmp_path: Path, record: bytes) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    archive = tmp_path / "a.tar"
    archive.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + bytes(1024))
    with pytest.raises(UserError, match="extended header"):
        open_tree(archive)


@pytest.mark.parametrize(
    ("mode", "ending", "command"),
    [("gz", ".tar.gz", "gunzip"), ("bz2", ".tar.bz2", "bunzip2"), ("xz", ".tar.xz", "unxz")],
)
def test_a_compressed_tar_is_refused_with_the_command_that_helps(
    folder: Path, tmp_path: Path, mode: str, ending: str, command: str
) -> None:
    archive = tmp_path / f"imagenetv2{ending}"
    with tarfile.open(archive, f"w:{mode}") as file:
        file.add(folder, ".")
    with pytest.raises(UserError, match="compressed as a whole") as refused:
        open_tree(archive)
    assert f"`{command} imagenetv2{ending}`" in refused.value.hint


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("n01440764/a.jpg", b"a")
    content = bytearray(buffer.getvalue())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        open_tree(tmp_path / "a.zip")


def test_a_deflated_member_that_lies_about_its_size_does_not_grow_past_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("n01440764/a.jpg", bytes(10_000_000))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    assert open_tree(tmp_path / "a.zip").read("n01440764/a.jpg") == bytes(1000)


def test_a_damaged_member_is_an_error_of_that_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", os.urandom(100))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[35:60] = b"\xff" * 25
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(OSError, match="cannot be decompressed"):
        open_tree(tmp_path / "a.zip").read("a.jpg")


def test_an_archive_that_shrinks_later_is_an_error_of_the_files_it_lost(folder: Path) -> None:
    archive = _packed(folder, "gnu tar")
    tree = open_tree(archive)
    os.truncate(archive, 600)
    with pytest.raises(OSError, match="ends inside this member"):
        tree.read("n01440764/b.JPEG")


def test_what_is_no_data_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nothing at"):
        open_tree(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="neither a folder nor a tar or zip"):
        open_tree(tmp_path / "notes.txt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="symbolic link"):
        open_tree(tmp_path / "loop")


def test_a_folder_without_permission_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched, since these tests may run as root, whom no permission stops.
    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        open_tree(folder)
