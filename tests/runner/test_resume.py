"""What a run takes over: a larger plan from its own folder, finished shards from other runs made alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.used import Maker
from robustbench_twicing.runner.resume import refuse_other_settings, take_over, to_take_over
from robustbench_twicing.spec.plan import Plan
from tests.records_builder import begun_folder, records, run_folder

FRAME = records({("deit", threat): np.ones(20, dtype=bool) for threat in ("clean", "fgsm-linf-1/255")})
MAKER = Maker(code="0f3a", versions={"torch": "2.6"}, device="cpu")


def _plan(tmp_path: Path, text: str) -> Plan:
    (tmp_path / "p.toml").write_text(text)
    return read_plan(tmp_path / "p.toml").plan


SMALL = 'models = ["deit"]\n[[attacks]]\nnames = ["fgsm"]\n'


def _begun(tmp_path: Path) -> RunFolder:
    return RunFolder(begun_folder(tmp_path / "run", _plan(tmp_path, SMALL)))


@pytest.mark.parametrize(
    "text",
    [
        SMALL,
        'models = ["deit", "deit-tw"]\n[[attacks]]\nnames = ["fgsm"]\n',
        'models = ["deit"]\n[[attacks]]\nnames = ["pgd", "fgsm"]\neps = ["1/255", "2/255"]\n',
    ],
)
def test_the_same_plan_and_one_with_more_models_or_threats_continue(tmp_path: Path, text: str) -> None:
    refuse_other_settings(_begun(tmp_path), _plan(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 1\n" + SMALL, "seed"),
        ("limit = 5\n" + SMALL, ": limit differ"),
        ('data = "imagenet"\n' + SMALL, ": data, model deit differ"),
        (SMALL.replace("deit", "deit-tw"), r"model deit \(not in the plan\)"),
        (SMALL.replace("fgsm", "pgd"), r"threat fgsm-linf-1/255 \(not in the plan\)"),
        ('protocol = "paper"\n' + SMALL, "threat fgsm-linf-1/255 differ"),
        (SMALL.replace("deit", "deit=p.toml"), "model deit differ"),  # other weights; any file will do
    ],
)
def test_any_other_plan_is_refused_by_what_differs(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        refuse_other_settings(_begun(tmp_path), _plan(tmp_path, text))


def test_a_plan_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    folder = _begun(tmp_path)
    file = folder.path / "run.json"
    content = json.loads(file.read_text())
    content["plan"]["threats"][0] = {"kind": "a threat of tomorrow"}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json was altered: plan\.threats\.0.* 'a threat of tomorrow'"):
        refuse_other_settings(folder, _plan(tmp_path, SMALL))


def _other(runs: Path, frame: pd.DataFrame = FRAME, **manifest: Any) -> RunFolder:
    return RunFolder(run_folder(runs / "last-night", frame, **{"made_by": [MAKER], **manifest}))


def test_finished_shards_of_a_run_made_alike_are_copied_whole(tmp_path: Path) -> None:
    other, ours = _other(tmp_path / "runs"), RunFolder(tmp_path / "runs" / "tonight")
    shards = list(other.manifest().shards)
    assert set(take_over(ours, shards, tmp_path / "runs", MAKER).values()) == {"last-night"}
    for shard in shards:  # a copy, so that harm to one run does not reach the other
        ((mine, content),) = ours.whole_files(shard).items()
        ((theirs, same),) = other.whole_files(shard).items()
        assert content == same
        assert not mine.samefile(theirs)


@pytest.mark.parametrize(
    "makers",
    [
        [MAKER.model_copy(update={"code": "changed"})],
        [MAKER.model_copy(update={"versions": {"torch": "2.7"}})],
        [MAKER.model_copy(update={"device": "NVIDIA H100"})],
        [MAKER, MAKER.model_copy(update={"code": "changed"})],
        [],
    ],
)
def test_nothing_is_taken_from_a_run_that_was_made_otherwise(tmp_path: Path, makers: list[Maker]) -> None:
    other = _other(tmp_path / "runs", made_by=makers)
    shards = list(other.manifest().shards)
    assert to_take_over(RunFolder(tmp_path / "runs" / "tonight"), shards, tmp_path / "runs", MAKER) == {}


def test_a_damaged_shard_is_not_taken_over_and_stays_as_it_is(tmp_path: Path) -> None:
    other = _other(tmp_path / "runs")
    shards = list(other.manifest().shards)
    file = other.files_of(shards[0])[0]
    file.write_bytes(file.read_bytes()[:-3])
    taken = take_over(RunFolder(tmp_path / "runs" / "tonight"), shards, tmp_path / "runs", MAKER)
    assert list(taken) == shards[1:]
    assert file.exists()


def test_folders_that_are_no_runs_are_passed_over(tmp_path: Path) -> None:
    other = _other(tmp_path / "runs")
    shards = list(other.manifest().shards)
    (other.path / "run.json").write_text("{")
    assert to_take_over(RunFolder(tmp_path / "runs" / "tonight"), shards, tmp_path / "runs", MAKER) == {}
    assert to_take_over(RunFolder(tmp_path / "x"), shards, tmp_path / "nowhere", MAKER) == {}
