import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.paired import (
    MUST_AGREE,
    Flips,
    LeftOut,
    count_flips,
    draws_spread,
    match,
    match_suite,
)
from robustbench_twicing.spec.records import COLUMNS

DTYPES = {column.name: column.type for column in COLUMNS}


def records(model="deit", samples=range(6), correct=None, status=None, threat="clean", **columns):
    """Records of one model under one threat, with the columns that pairing looks at."""
    samples = list(samples)
    status = dict.fromkeys(samples, "ok") | (status or {})
    frame = pd.DataFrame(
        {
            "model": model,
            "attention": "softmax",
            "weights_hash": f"w-{model}",
            "data": "digits",
            "data_fingerprint": "f1",
            "recipe": "none",
            "threat": threat,
            "protocol_hash": "h1",
            "seed": 0,
            "sample_id": [f"s{index:03}" for index in samples],
            "label": [index % 3 for index in samples],
            "status": [status[index] for index in samples],
            "correct": [bool(index % 2) for index in samples] if correct is None else correct,
        }
    )
    return frame.assign(**columns).astype({name: DTYPES[name] for name in frame.columns if DTYPES[name] != "string"})


def test_samples_are_aligned_by_id_whatever_the_order_of_the_rows():
    baseline = records(correct=[True, True, False, False, True, False])
    candidate = records("deit-tw", correct=[True, False, True, False, True, True])
    pairs = match(baseline.sample(frac=1, random_state=0), candidate.sample(frac=1, random_state=1))
    assert pairs.sample_ids.tolist() == ["s000", "s001", "s002", "s003", "s004", "s005"]
    assert pairs.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert pairs.baseline.tolist() == [True, True, False, False, True, False]
    assert pairs.candidate.tolist() == [True, False, True, False, True, True]
    assert pairs.baseline_left_out == pairs.candidate_left_out == LeftOut(0, 0, 0)


def test_only_samples_that_both_answered_are_compared_and_the_others_are_counted():
    baseline = records(samples=range(8), status={1: "failed", 3: "failed", 5: "skipped"})
    candidate = records("deit-tw", samples=range(3, 10), status={4: "failed", 5: "failed"})
    pairs = match(baseline, candidate)
    assert pairs.sample_ids.tolist() == ["s006", "s007"]
    assert pairs.baseline_left_out == LeftOut(failed=2, skipped=1, missing=2)  # 8, 9
    assert pairs.candidate_left_out == LeftOut(failed=2, skipped=0, missing=3)  # 0, 1, 2


@pytest.mark.parametrize("column", MUST_AGREE)
def test_a_differing_field_is_refused_with_both_values(column):
    other = 7 if column == "seed" else "other"
    with pytest.raises(UserError) as refusal:
        match(records(), records("deit-tw", **{column: other}))
    assert f"{column}: {records()[column].iloc[0]} | {other}" in refusal.value.message
    assert "deit and deit-tw" in refusal.value.message
    assert sum(f"{name}:" in refusal.value.message for name in MUST_AGREE) == 1


def test_two_seeds_are_compared_of_the_same_weights_only():
    one, other = records(correct=[True] * 6), records(seed=1, correct=[True] * 4 + [False] * 2)
    pairs = match(one, other, draws=True)
    assert count_flips(pairs.baseline, pairs.candidate).lost == 2
    for candidate in (
        records(seed=1, attention="twicing"),
        records(seed=1, recipe="paper"),
        records("deit-tw", seed=1),
    ):
        with pytest.raises(UserError, match=r"seed: 0 \| 1") as refusal:
            match(one, candidate, draws=True)
    assert "Two seeds can be compared of the same weights only" in refusal.value.hint


def test_the_spread_over_seeds_of_the_draws_follows_from_the_flips_of_two():
    draw = np.random.default_rng(0)
    share = draw.choice([0.0, 1.0, 0.1, 0.5, 0.9], size=500, p=[0.3, 0.5, 0.1, 0.05, 0.05])
    seeds = draw.random((400, 500)) < share
    found = [draws_spread(count_flips(one, other)) for one, other in zip(seeds[::2], seeds[1::2], strict=True)]
    assert np.mean(np.square(found)) == pytest.approx(seeds.mean(axis=1).var(ddof=1), rel=0.15)


def test_all_differing_fields_are_named_at_once():
    with pytest.raises(UserError) as refusal:
        match(records(), records("deit-tw", seed=1, recipe="paper", protocol_hash="h2"))
    for line in ("seed: 0 | 1", "recipe: none | paper", "protocol_hash: h1 | h2"):
        assert line in refusal.value.message


def test_frames_of_more_than_one_cell_are_refused():
    with pytest.raises(UserError, match=r"candidate's records mix several values of model: deit, deit-tw"):
        match(records(), pd.concat([records(), records("deit-tw")]))
    with pytest.raises(UserError, match=r"baseline's records mix several values of threat"):
        match(pd.concat([records(), records(threat="pgd-linf-1/255")]), records())
    with pytest.raises(UserError, match=r"candidate holds 1 sample.* more than once, the first being s005"):
        match(records(), pd.concat([records("deit-tw"), records("deit-tw", samples=[5])]))
    with pytest.raises(UserError, match="baseline has no records"):
        match(records().iloc[:0], records())


def test_disjoint_or_differently_labelled_samples_are_refused():
    with pytest.raises(UserError, match="share no sample that both answered"):
        match(records(samples=range(3)), records("deit-tw", samples=range(3, 6)))
    wrong = records("deit-tw")
    wrong.loc[2, "label"] = 0
    with pytest.raises(UserError, match=r"1 sample\(s\) have another label on each side, the first being s002"):
        match(records(), wrong)


def test_a_suite_keeps_the_samples_answered_under_every_threat():
    def cells(model, failed):
        return {
            threat: records(model, threat=threat, status={failed[threat]: "failed"}, protocol_hash=threat)
            for threat in ("snow-1", "clean", "fog-2")
        }

    pairs = match_suite(
        cells("deit", {"snow-1": 0, "clean": 1, "fog-2": 1}), cells("deit-tw", {"snow-1": 0, "clean": 2, "fog-2": 1})
    )
    assert pairs.threats == ("snow-1", "clean", "fog-2")
    assert pairs.sample_ids.tolist() == ["s003", "s004", "s005"]
    assert pairs.labels.tolist() == [0, 1, 2]
    assert pairs.baseline.tolist() == pairs.candidate.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert pairs.incomplete == 3  # samples 0, 1 and 2 are answered by both under some threat


def test_suite_columns_keep_their_threat():
    correct = {"a": [True, False, True], "b": [False, False, True], "c": [True, True, True]}
    frames = {threat: records(threat=threat, samples=range(3), correct=hits) for threat, hits in correct.items()}
    pairs = match_suite(frames, frames)
    assert pairs.baseline.T.tolist() == list(correct.values())


def test_suites_of_other_threats_or_other_images_are_refused():
    frames = {threat: records(threat=threat) for threat in ("a", "b")}
    with pytest.raises(UserError, match="Only one of the two models has records under b"):
        match_suite(frames, {"a": frames["a"]})
    with pytest.raises(UserError, match="under any threat"):
        match_suite({}, {})
    elsewhere = {"a": frames["a"], "b": records(threat="b", samples=range(6, 9))}
    with pytest.raises(UserError, match="under every threat"):
        match_suite(elsewhere, elsewhere)
    relabelled = {"a": frames["a"], "b": frames["b"].assign(label=0)}
    with pytest.raises(UserError, match="under b and a: labels differ"):
        match_suite(relabelled, relabelled)


def test_flips_are_counted_by_hand():
    baseline = np.array([True, True, True, False, False, False, False])
    candidate = np.array([True, False, False, True, False, False, False])
    flips = count_flips(baseline, candidate)
    assert flips == Flips(both_right=1, lost=2, gained=1, both_wrong=3)
    assert flips.n == 7
    assert flips.difference == pytest.approx(candidate.mean() - baseline.mean())
    assert flips.discordance == pytest.approx(3 / 7)
