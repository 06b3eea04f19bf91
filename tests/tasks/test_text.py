"""Language models on texts: windows, corruptions, and the numbers."""

import hashlib
import math
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_ind

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.data.texts import embedded_text, fingerprint, open_texts
from robustbench_twicing.engine.text_corruptions import Edited, corrupt_text, eligible_words
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.perplexity import (
    arms_difference,
    arms_rise,
    bits_per_byte,
    paired_difference,
    paired_rise,
)
from robustbench_twicing.models.language import ByteModel, load_language_model
from robustbench_twicing.models.tiny_lm import new_tiny_lm
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.text import TEXT_CORRUPTIONS, WindowRule
from robustbench_twicing.tasks.text.score import scored
from robustbench_twicing.tasks.text.windows import windows

TEXT = "The quick brown fox jumps over the lazy dog, and naïve zebras watch it. " * 20


def rule(text: str) -> WindowRule:
    return WindowRule.parse(text)


def network(attention: str = "softmax") -> ByteModel:
    shipped = "package:weights/language/softmax-s0.safetensors"
    spec = ModelSpec(name="m", architecture="tiny-lm", attention=Attention(), weights=shipped)
    card = load_language_model(spec).card
    return ByteModel(new_tiny_lm(Attention.parse(attention), 0).eval(), card)


@pytest.mark.parametrize("said", ["disjoint(8)", "strided(8,3)", "strided(8,1)", "paper(8)"])
@pytest.mark.parametrize("tokens", [0, 1, 2, 8, 9, 10, 25])
def test_every_token_but_the_first_is_scored_exactly_once_and_sees_only_what_is_before_it(
    said: str, tokens: int
) -> None:
    here = list(windows(tokens, rule(said)))
    places = [place for one in here for place in range(one.scored_from, one.stop + 1)]
    assert places == list(range(1, tokens))
    assert all(0 <= one.start < one.scored_from and one.stop - one.start <= 8 for one in here)
    if said.startswith("paper"):  # as the authors read: no window knows anything of the one before
        assert [one.start for one in here] == [one.scored_from - 1 for one in here]


@pytest.mark.parametrize("text", ["", "strided(8)", "strided(8,9)", "disjoint(1)", "paper(8,2)", "sliding", "disjoint"])
def test_what_is_no_window_rule_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        rule(text)


@pytest.mark.parametrize("corruption", TEXT_CORRUPTIONS)
def test_a_higher_rate_hits_every_word_that_a_lower_one_hits_and_the_untouched_text_is_the_originals(
    corruption: str,
) -> None:
    few, many = (corrupt_text(TEXT, corruption, rate, 3, "doc") for rate in (0.05, 0.4))
    assert 0 < few.hit < many.hit < many.eligible == len(eligible_words(TEXT))
    assert corrupt_text(TEXT, corruption, 0.4, 3, "doc") == many
    assert corrupt_text(TEXT, corruption, 0.4, 4, "doc") != many
    for found in (few, many):
        untouched, place = "", 0
        for low, high in found.spans:
            untouched, place = untouched + found.text[place:low], high
        left = Counter((untouched + found.text[place:]).replace(" ", ""))
        assert left <= Counter(TEXT)
        assert corruption == "homoglyph" or found.text != TEXT


def test_headings_unknown_words_and_punctuation_are_not_eligible() -> None:
    text = " = A Heading = \nword <unk> 1,000 other <eos>\n"
    assert [text[slice(*span)] for span in eligible_words(text)] == ["word", "other"]


def test_where_something_was_left_out_only_a_piece_across_it_is_touched() -> None:
    dropped = Edited("one three", ((3, 3), (4, 9)), 1, 3)
    assert [dropped.is_touched(*span) for span in ((0, 3), (3, 4), (2, 4), (4, 5), (8, 9))] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_nats_follow_the_definition_token_by_token_whatever_the_batch() -> None:
    model, edited = network("twicing"), corrupt_text(TEXT[:300], "fixed-word", 0.3, 0, "doc")
    found = scored(model, edited, rule("strided(32,8)"), 5, torch.device("cpu"))
    ids = [0, *edited.text.encode()]
    nats, untouched = 0.0, 0.0
    touched = model.tokens_of(edited.text).spans
    with torch.no_grad():
        for place in range(1, len(ids)):
            stop = 32 if place <= 32 else min(32 + -(-(place - 32) // 8) * 8, len(ids) - 1)
            before = torch.tensor([ids[max(0, stop - 32) : place]])
            cost = -model.logits(before)[0, -1].log_softmax(-1)[ids[place]].item()
            nats += cost
            untouched += 0.0 if edited.is_touched(*touched[place - 1]) else cost
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.untouched_nats == pytest.approx(untouched, rel=1e-5)
    assert found.tokens == found.size == len(edited.text.encode())
    assert scored(model, edited, rule("strided(32,8)"), 64, torch.device("cpu")).nats == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("attention", ["softmax", "twicing", "twicing(0.5)@last2", "neutreno"])
def test_no_position_of_tiny_lm_sees_a_later_one(attention: str) -> None:
    model, tokens = network(attention), torch.arange(1, 41)[None]
    other = tokens.clone()
    other[0, -1] = 99
    with torch.no_grad():
        assert torch.equal(model.logits(tokens)[0, :-1], model.logits(other)[0, :-1])


def test_logits_that_are_no_numbers_fail_and_are_in_no_sum() -> None:
    model = network()
    model.network.norm.weight.data[0] = math.nan
    assert math.isnan(scored(model, Edited("some text", (), 0, 0), rule("disjoint(8)"), 4, torch.device("cpu")).nats)


def test_numbers_of_texts_are_ratios_of_sums_and_pairs_are_of_documents() -> None:
    nats, size = np.array([10.0, 90.0, 20.0, 30.0]), np.array([10.0, 30.0, 10.0, 20.0])
    assert bits_per_byte(nats, size) == pytest.approx(150 / 70 / math.log(2))
    found = paired_difference(nats, nats * 0.9, size)
    assert found.value == pytest.approx(-15 / 70 / math.log(2))
    assert found.interval.low <= found.value <= found.interval.high < 0
    assert found.p == pytest.approx(2 / 2**4, abs=0.01)  # all four signs alike
    rise = paired_rise(nats, nats * 1.1, size, 0.2, 0.95)
    above = nats * 0.1 / math.log(2) - 0.2 * size
    assert rise.p_exceeded == pytest.approx(ttest_1samp(above, 0, alternative="greater").pvalue)
    assert rise.p_ruled_out == pytest.approx(ttest_1samp(above, 0, alternative="less").pvalue)
    seeds = [1.0, 1.1, 1.3], [1.2, 1.3, 1.4, 1.35]
    assert arms_rise(*seeds, 0.05, 0.95).p_exceeded == pytest.approx(
        ttest_ind(np.array(seeds[1]) - 0.05, seeds[0], equal_var=False, alternative="greater").pvalue
    )
    # statsmodels.stats.weightstats.ttest_ind(usevar="unequal"): t = -3.354102, p = 0.0196
    arms = arms_difference([1.0, 2.0, 3.0, 4.0], [5.0, 6.5, 5.5, 7.0])
    assert arms.interval.low < arms.value == 3.5 < arms.interval.high
    with pytest.raises(UserError, match="2 documents"):
        paired_difference(nats[:1], nats[:1], size[:1])


def test_the_text_that_ships_is_the_one_that_is_stated_and_no_paragraph_is_in_both_parts() -> None:
    content = package_file("texts/python-topics.jsonl").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "191708904ff34f534cebd83c8fb631702c9b15ee1ff01084cfd14401cc01673c"
    parts = [
        {" ".join(some.split()) for document in embedded_text(split) for some in document.text.split("\n\n")}
        for split in ("train", "test")
    ]
    assert len(embedded_text("test")) == 16
    assert parts[0] & parts[1] <= {""}
    assert package_file("texts/LICENSE-PSF.txt").is_file()


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.touch()
    os.truncate(path, 64 * 2**20)  # zeros on no disk: a line without an end
    with path.open("ab") as file:
        file.write("naïve\n".encode())
    tracemalloc.start()
    try:
        texts = open_texts(str(path))
        last = texts.read(len(texts.ids) - 1).text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last.endswith("naïve\n")
    assert peak < 2**24


def test_rows_of_a_parquet_file_are_read_group_by_group_and_empty_ones_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"text": ["a b", None, "", "c d", "e"]}), path, row_group_size=2)
    texts = open_texts(str(path))
    found = [texts.read(place) for place in (2, 0, 1)]
    assert [one.text for one in found] == ["e", "a b", "c d"]
    assert texts.fingerprint == fingerprint([found[1], found[2], found[0]])
    pq.write_table(pa.table({"text": ["other"]}), path)
    assert open_texts(str(path)).read(0).text == "other"


def test_files_are_cut_into_documents_and_bad_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("naïve words and more\n" * 3000, encoding="utf-8")
    texts = open_texts(str(tmp_path / "long.txt"))
    assert "".join(texts.read(n).text for n in range(len(texts.ids))) == "naïve words and more\n" * 3000
    assert len(texts.ids) == 5
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    (tmp_path / "wrong.parquet").write_bytes(b"PAR1")
    for name, says in (
        ("empty.txt", "empty"),
        ("latin.txt", "byte 7"),
        ("wrong.parquet", "text"),
        ("no.txt", "no text"),
    ):
        with pytest.raises(UserError, match=says):
            open_texts(str(tmp_path / name))
