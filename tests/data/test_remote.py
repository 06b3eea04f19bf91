"""Data and weights that lie elsewhere, through the door users use, against a server that speaks S3 on this machine."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine import remote
from robustbench_twicing.machine.remote import RemotePath, is_remote, place_of_text
from robustbench_twicing.models.build import new_network
from robustbench_twicing.results.run import load_run
from tests.imagenet_trees import pack_tar, pack_zip, photograph


def test_an_address_stays_one_through_paths_and_nothing_else_becomes_one() -> None:
    for text in ("s3://bucket/a/b.tar", "s3:/bucket/a/b.tar", str(Path("s3://bucket/a/b.tar"))):
        assert str(place_of_text(text)) == "s3://bucket/a/b.tar"
    assert place_of_text("s3://bucket/a.tar") == place_of_text("s3:/bucket/a.tar")
    for text in ("data/val.tar", "/data/a:b/c", "C:/data", "~/x", "timm:resnet18", "a=b"):
        assert not is_remote(text)


@pytest.mark.parametrize("text", ["https://me:secret@host/val.tar", "https://host/val.tar?X-Amz-Signature=abc"])
def test_an_address_with_a_secret_is_refused_without_saying_it(text: str) -> None:
    with pytest.raises(UserError, match="has a password or a signature in it") as refusal:
        place_of_text(text)
    assert "secret" not in str(refusal.value)
    assert "abc" not in str(refusal.value)


def test_the_cache_stays_within_its_bound_and_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CACHE", tmp_path)
    monkeypatch.setattr(remote, "MOST_BYTES", 20_000)
    monkeypatch.setitem(remote._answers, "s3://b/x", (10**6, "v1", False))
    path = RemotePath("s3://b/x")
    made = [path.derived(str(number), lambda: bytes(3_000)) for number in range(20)]
    assert all(len(content) == 3_000 for content in made)
    left = list(tmp_path.glob("*/*"))
    assert 3_000 * len(left) <= 20_000
    path.derived("19", lambda: pytest.fail("it was used last"))


# --- against a server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """s3://pets on a server of this process; the credentials are in the environment, as users have them."""
    pytest.importorskip("moto", reason="moto is not installed: nothing is read from S3 here")
    pytest.importorskip("s3fs", reason="s3fs is not installed: nothing is read from S3 here")
    import boto3
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key-of-the-test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="pets")
        yield client
        server.stop()


@pytest.fixture
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(remote, "_answers", {})
    for number in range(6):
        folder = tmp_path / "data" / ("cat", "dog", "pig")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(number, (180, 170)).save(folder / f"{number}.png")
    (tmp_path / "data" / "cat" / "film.bin").write_bytes(os.urandom(10**6))  # nobody needs it
    pack_tar(tmp_path / "data", tmp_path / "pets.tar", "pets")
    pack_zip(tmp_path / "data", tmp_path / "pets.zip", "pets")
    (tmp_path / "pets.toml").write_text('layout = "imagefolder"\n')
    save_file(new_network("test_vit", classes=3).state_dict(), tmp_path / "net.safetensors")


def _records(out: str, *arguments: str) -> pd.DataFrame:
    words = ["corrupt", "--suite", "pets.toml", "--quiet", "--out", out, *arguments]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return load_run(out).records.drop(columns="seconds")


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_archives_and_weights_are_read_where_they_lie_by_ranges_and_once(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets.tar", "pets.zip", "net.safetensors"):
        bucket.upload_file(name, "pets", name)
    came, own = list[int](), remote._range

    def counted(path: RemotePath, begin: int, end: int) -> bytes:
        came.append(end - begin)
        return own(path, begin, end)

    monkeypatch.setattr(remote, "_range", counted)
    here = _records("here", "--model", "test_vit=net.safetensors", "--data-dir", "pets.tar")
    assert here["sample_id"].nunique() == 6
    for packed in ("pets.tar", "pets.zip"):
        came.clear()
        out = f"there-{packed[-3:]}"
        there = _records(out, "--model", "test_vit=s3://pets/net.safetensors", "--data-dir", f"s3://pets/{packed}")
        pd.testing.assert_frame_equal(there, here)
        images = sum(came) - (Path("net.safetensors").stat().st_size if packed == "pets.tar" else 0)
        assert images < sum(file.stat().st_size for file in Path("data").glob("*/*.png")) + 50_000
        assert "of-the-test" not in (Path(out) / "run.json").read_text()
    came.clear()
    _records("again", "--model", "test_vit=s3://pets/net.safetensors", "--data-dir", "s3://pets/pets.tar", "--fresh")
    assert came == []  # out of the cache
    said = json.loads(Path("again/run.json").read_text())
    assert said["plan"]["models"][0]["weights"] == "file:s3://pets/net.safetensors"


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_what_is_not_there_or_no_archive_is_refused_by_name(bucket: Any) -> None:
    bucket.put_object(Bucket="pets", Key="folder/cat/1.png", Body=b"x")
    bucket.put_object(Bucket="pets", Key="damaged.tar", Body=b"\0" * 10_000)

    def refused(place: str) -> str:
        words = ["corrupt", "--suite", "pets.toml", "--quiet", "--model", "test_vit=net.safetensors"]
        result = CliRunner().invoke(app, [*words, "--data-dir", place], catch_exceptions=False, env={"COLUMNS": "300"})
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        return " ".join(result.output.split())

    assert "Nothing at s3://pets/absent.tar" in refused("s3://pets/absent.tar")
    assert "s3://pets/folder is a folder, and elsewhere only archives are read" in refused("s3://pets/folder")
    assert "s3://pets/damaged.tar is neither a folder nor a tar or zip archive" in refused("s3://pets/damaged.tar")
    assert "ftpx://host/x.tar cannot be read" in refused("ftpx://host/x.tar")


RUN = ("attack", "--model", "deit", "--attack", "fgsm", "--eps", "1/255", "--limit", "8", "--quiet")


def _said(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False, env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def _lies(bucket: Any, under: str) -> dict[str, bytes]:
    """Everything that lies under an address."""
    listed = bucket.list_objects_v2(Bucket="pets", Prefix=f"{under}/").get("Contents", [])
    return {
        one["Key"].removeprefix(f"{under}/"): bucket.get_object(Bucket="pets", Key=one["Key"])["Body"].read()
        for one in listed
    }


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_a_run_and_its_bundle_lie_elsewhere_and_are_continued_and_read_there(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "s3://pets/runs/night"
    assert f"The run is at {address}" in _said(*RUN, "--out", address)
    there = _lies(bucket, "runs/night")
    assert {name.partition("/")[0] for name in there} == {"run.json", "records", "summary.csv"}
    here = load_run(address).path
    assert {name: (here / name).read_bytes() for name in there} == there

    monkeypatch.chdir(tmp_path / "data")  # as on another machine: no working copy
    shard = next(name for name in there if name.endswith(".parquet"))
    bucket.delete_object(Bucket="pets", Key=f"runs/night/{shard}")
    assert "Not whole: 1 of 2 shards do not count" in _said("report", address)
    _said(*RUN, "--out", address)
    again = _lies(bucket, "runs/night")
    kept = [name for name in there if name.endswith(".parquet") and name != shard]
    assert [again[name] for name in kept] == [there[name] for name in kept]
    assert len(again) == len(there)
    assert "fgsm" in _said("report", address)
    _said(*RUN, "--out", address, "--fresh")
    assert len(_lies(bucket, "runs/night")) == len(there)  # what was computed before is gone there too

    _said("bundle", address, "--out", "s3://pets/evidence.zip")
    assert "values from 16 records follow" in _said("bundle", "verify", "s3://pets/evidence.zip")
    assert "of-the-test" not in again["run.json"].decode()


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_what_cannot_be_put_elsewhere_is_kept_here_and_said(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "s3://pets/runs/later"

    def no_network(self: RemotePath, data: bytes) -> int:
        if self.name == ".writable":
            return 0  # at first it does
        raise OSError("the network does not hold")

    with monkeypatch.context() as broken:
        broken.setattr(RemotePath, "write_bytes", no_network)
        said = _said(*RUN, "--out", address, code=2)
    assert f"not all of it at {address}: the network does not hold" in said
    assert "Traceback" not in said
    assert _lies(bucket, "runs/later") == {}
    shards = {file: file.stat().st_mtime_ns for file in Path("results/runs").glob("*/records/*/*.parquet")}
    _said(*RUN, "--out", address)
    assert {file: file.stat().st_mtime_ns for file in shards} == shards
    assert len(_lies(bucket, "runs/later")) == len(shards) + 2
    assert "s3://pets/absent is not a run folder" in _said("report", "s3://pets/absent", code=2)
    assert "s3://absent/x cannot be" in _said(*RUN, "--out", "s3://absent/x", code=2)  # no such bucket
    nowhere = "https://127.0.0.1:1/runs"
    assert f"Nothing can be written to {nowhere}" in _said(*RUN, "--out", nowhere, code=2)


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
def test_a_machine_whose_cache_cannot_be_written_reads_all_the_same(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets.zip", "net.safetensors"):
        bucket.upload_file(name, "pets", f"full/{name}")
    (tmp_path / "full").mkdir()
    monkeypatch.setattr(remote, "CACHE", tmp_path / "full")

    def full(self: Path, *_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    here = _records("here", "--model", "test_vit=net.safetensors", "--data-dir", "pets.zip")
    own = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, mode="r", *rest, **how: (
            full if self.suffix == ".part" and self.is_relative_to(tmp_path / "full") else own
        )(self, mode, *rest, **how),
    )
    there = _records("there", "--model", "test_vit=net.safetensors", "--data-dir", "s3://pets/full/pets.zip")
    pd.testing.assert_frame_equal(there, here)
    words = ["corrupt", "--suite", "pets.toml", "--quiet", "--model", "test_vit=s3://pets/full/net.safetensors"]
    said = _said(*words, "--data-dir", "pets.zip", "--out", "weights", code=2)
    assert "is fetched whole" in said
    assert "XDG_CACHE_HOME" in said
