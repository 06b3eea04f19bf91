"""`--keep-images`: files that hold what the network saw, and what it answered."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from robustbench_twicing import load_run
from robustbench_twicing.cli.app import app
from robustbench_twicing.models.build import load_model

WHAT = ["--attack", "fgsm", "--eps", "8/255", "--suite", "digits-c", "-c", "fog", "--severity", "3", "--limit", "20"]


def _run(*arguments: str) -> None:
    done = CliRunner().invoke(app, ["attack", "-m", "deit", *WHAT, "-q", "--out", "run", *arguments], env={})
    assert done.exit_code == 0, done.output


def _kept() -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for file in Path("run").glob("images/*/images.npz"):
        with np.load(file) as arrays:
            found[str(arrays["threat"])] = {**arrays, "folder": np.array(str(file.parent))}
    return found


def test_the_arrays_are_what_the_model_answered_on_and_the_pictures_show_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run("--keep-images", "3")
    run, kept = load_run("run"), _kept()
    model = load_model(run.manifest.plan.models[0])
    assert set(kept) == {"clean", "fgsm-linf-8/255", "digits-c:fog-3"}
    for threat, one in kept.items():
        rows = run.records[run.records["threat"] == threat].set_index("sample_id")
        assert one["images"].dtype == np.float32
        assert one["images"].shape == (3, 3, 32, 32)
        assert one["predictions"].tolist() == rows.loc[one["ids"], "prediction"].tolist()
        assert model(torch.from_numpy(one["images"])).argmax(1).tolist() == one["predictions"].tolist()
        distance = np.abs(one["images"].astype(float) - one["clean"]).reshape(3, -1).max(1)
        if threat.startswith("fgsm"):
            assert (distance <= 8 / 255 + 1e-6).all()
            assert distance.tolist() == pytest.approx(rows.loc[one["ids"], "linf_distance"].tolist(), abs=1e-9)
            clean = run.records[run.records["threat"] == "clean"].set_index("sample_id")["correct"]
            broken = [i for i in rows.index if clean[i] and not rows.loc[i, "correct"]]
            assert one["ids"].tolist()[: len(broken)] == broken[:3]
        pictures = sorted(Path(str(one["folder"])).glob("*[0-9].png"))
        assert len(pictures) == 3
        shown = {file.stem.partition("-")[2]: np.asarray(Image.open(file)) for file in pictures}
        for sample, image in zip(one["ids"], one["images"], strict=True):
            assert np.abs(shown[str(sample)].transpose(2, 0, 1) / 255 - image).max() <= 0.5 / 255 + 1e-6
    # A finished run gets those that somebody removed, and keeps its records; another number is another choice.
    attacked = Path(str(kept["fgsm-linf-8/255"]["folder"]))
    before, clean_time = (attacked / "images.npz").read_bytes(), next(Path("run").glob("images/deit.clean*/images.npz"))
    (attacked / "images.npz").unlink()
    untouched = clean_time.stat().st_mtime_ns
    _run("--keep-images", "3")
    with np.load(attacked / "images.npz") as again:
        assert again["images"].tobytes() == kept["fgsm-linf-8/255"]["images"].tobytes()
    assert len(before) == (attacked / "images.npz").stat().st_size
    assert clean_time.stat().st_mtime_ns == untouched
    _run("--keep-images", "2")
    assert {len(one["ids"]) for one in _kept().values()} == {2}
    assert not list(Path("run").rglob(".*.part"))
    assert CliRunner().invoke(app, ["bundle", "run", "--out", "e.zip"]).exit_code == 0
    assert not [name for name in ZipFile("e.zip").namelist() if "images" in name]
