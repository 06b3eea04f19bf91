"""Archives read in place, against the standard library and against the folder they were packed from."""

import contextlib
import io
import os
import tarfile
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
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
        file.writestr("n01440764/a.jpg", bytes(100_000_000))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    tree = open_tree(tmp_path / "a.zip")
    tracemalloc.start()
    with pytest.raises(OSError, match="length or checksum"):
        tree.read("n01440764/a.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_zip_is_an_error_of_that_file(tmp_path: Path, method: int) -> None:
    random = os.urandom(2000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("n01440764/a.jpg", random)
        file.writestr("n01440764/b.jpg", random)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[1000] ^= 4
    (tmp_path / "a.zip").write_bytes(content)
    tree = open_tree(tmp_path / "a.zip")
    with pytest.raises(OSError, match=r"checksum|decompressed"):
        tree.read("n01440764/a.jpg")
    assert tree.read("n01440764/b.jpg") == random


def test_links_in_an_archive_are_the_files_they_lead_to(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "n01440764").mkdir(parents=True)
    (root / "n01443537").mkdir()
    (root / "n01440764" / "a.jpg").write_bytes(b"aa")
    os.link(root / "n01440764" / "a.jpg", root / "n01443537" / "hard.jpg")
    (root / "n01443537" / "soft.jpg").symlink_to("../n01440764/a.jpg")
    (root / "n01443537" / "twice.jpg").symlink_to("soft.jpg")
    whole = _everything(FolderTree(root))
    for archive in (
        pack_tar(root, tmp_path / "a.tar", "h"),
        pack_tar(root, tmp_path / "b.tar", kind=tarfile.PAX_FORMAT),
    ):
        tree = open_tree(archive)
        inside = "h" if "h" in tree.listing("").folders else ""
        assert tree.left_out == ()
        assert {path.removeprefix("h/"): found for path, found in _everything(tree, inside).items()} == whole
        assert tree.size(join(inside, "n01443537/hard.jpg")) == 2


def test_what_is_no_file_in_an_archive_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, kind, target in [
            ("n01440764/out.jpg", tarfile.SYMTYPE, "/etc/hostname"),
            ("n01440764/up.jpg", tarfile.SYMTYPE, "../../x.jpg"),
            ("n01440764/circle.jpg", tarfile.SYMTYPE, "circle.jpg"),
            ("n01440764/gone.jpg", tarfile.LNKTYPE, "n01440764/nowhere.jpg"),
            ("n01440764/pipe.jpg", tarfile.FIFOTYPE, ""),
            ("d/" * 3000 + "deep.jpg", tarfile.REGTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            file.addfile(member)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        link = zipfile.ZipInfo("n01440764/z.jpg")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "nowhere.jpg")
    tree = open_tree(tmp_path)
    said = " ".join(tree.left_out)
    assert len(tree.left_out) == 7
    for name in (
        "out.jpg",
        "up.jpg",
        "circle.jpg",
        "gone.jpg (a hard link",
        "pipe.jpg (a pipe)",
        "in more than",
        "z.jpg",
    ):
        assert name in said
    assert tree.listing("") == ((), ())


def test_an_archive_appended_to_another_is_named(folder: Path, tmp_path: Path) -> None:
    archive = pack_tar(folder, tmp_path / "a.tar")
    before = open_tree(archive)
    assert before.left_out == ()
    archive.write_bytes(archive.read_bytes() + bytes(5000 * 512) + archive.read_bytes())
    tree = open_tree(archive)
    assert _everything(tree) == _everything(before)
    assert len(tree.left_out) == 1
    assert "another archive behind the end" in tree.left_out[0]


def test_a_pipe_in_a_folder_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="no regular file"):
        open_tree(tmp_path).read("a.jpg")


def test_names_that_are_not_utf8_are_read_and_shown_escaped(tmp_path: Path) -> None:
    member = tarfile.TarInfo("n01440764/caf\udce9.jpg")
    member.size = 2
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as file:
        file.addfile(member, io.BytesIO(b"ok"))
    tree = open_tree(tmp_path / "a.tar")
    (name,) = tree.listing("n01440764").files
    assert tree.read(f"n01440764/{name}") == b"ok"
    assert tree.where(f"n01440764/{name}") == f"{tmp_path}/a.tar: n01440764/caf\\xe9.jpg"


def test_an_odd_size_field_is_a_damaged_archive(tmp_path: Path) -> None:
    for field in (b"00000000z0 ", b"-0000000100", b"\xff" * 12):
        header = bytearray(tarfile.TarInfo("n01440764/a.jpg").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = field.ljust(12, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "a.tar").write_bytes(header + bytes(1024))
        with pytest.raises(UserError, match="damaged"):
            open_tree(tmp_path / "a.tar")


def test_a_zip_whose_member_begins_elsewhere_is_refused_or_an_error_of_that_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as file:
        file.writestr("n01440764/a.jpg", b"a" * 100)
    for offset in (1, 50, 200, 2**31):
        content = bytearray((tmp_path / "whole.zip").read_bytes())
        at = content.index(b"PK\x01\x02") + 42
        content[at : at + 4] = offset.to_bytes(4, "little")
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises((UserError, OSError), match="damaged"):
            open_tree(tmp_path / "a.zip").read("n01440764/a.jpg")


@pytest.mark.parametrize("kind", ["gnu tar", "pax tar", "stored zip", "deflated zip"])
def test_changed_bytes_end_in_messages_and_never_in_a_traceback(folder: Path, kind: str) -> None:
    whole = _packed(folder, kind).read_bytes()
    whole = whole.rstrip(b"\0") if kind.endswith("tar") else whole
    rng = np.random.default_rng(0)
    broken = folder.parent / "broken"
    ends = {"read": 0, "refused": 0}
    for _ in range(100):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), rng.integers(1, 6)):
            content[at] = rng.integers(256)
        broken.write_bytes(content)
        try:
            tree = open_tree(broken)
            for name in tree.listing("").folders:
                for file in tree.listing(name).files:
                    with contextlib.suppress(OSError):
                        tree.read(f"{name}/{file}")
            ends["read"] += 1
        except UserError:
            ends["refused"] += 1
    assert min(ends.values()) > 0


def test_finding_a_file_takes_no_longer_in_a_large_folder(tmp_path: Path) -> None:
    def seconds(files: int) -> float:
        with tarfile.open(tmp_path / f"{files}.tar", "w", format=tarfile.USTAR_FORMAT) as file:
            for number in range(files):
                file.addfile(tarfile.TarInfo(f"n01440764/{number * 7919 % files}.jpg"))
        tree = open_tree(tmp_path / f"{files}.tar")
        names = tree.listing("n01440764").files
        assert list(names) == sorted(f"{number}.jpg" for number in range(files))
        some = [f"n01440764/{name}" for name in names[:: files // 300]]
        times = []
        for _ in range(3):
            start = time.process_time()
            assert {tree.size(path) for path in some} == {0}
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(6_000) < 5 * seconds(300)  # 20 times where files are gone through one by one


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
