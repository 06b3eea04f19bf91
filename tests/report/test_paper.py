"""The tables in the paper's layout say what the run's own tables say."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.report.page import Table
from robustbench_twicing.report.paper import paper_page
from robustbench_twicing.results.run import load_run
from tests.records_builder import cell, run_folder
from tests.report.shown import parsed, printed

ATTACKS = ("fgsm-linf-1/255", "square-linf-1/255", "pgd-linf-1/255")


def _tables(tmp_path: Path, *more: pd.DataFrame) -> tuple[Table, Table, str]:
    cells = [
        cell(model, threat, np.arange(20) < right)
        for model, right in (("deit", 16), ("deit-tw", 18))
        for threat in ("clean", *ATTACKS)
    ]
    page = paper_page([load_run(run_folder(tmp_path / "run", pd.concat([*cells, *more], ignore_index=True)))])
    assert parsed(page)["rows"]
    attacked, shifted = page.tables
    return attacked, shifted, printed(page, 200)


def test_models_are_rows_and_the_papers_attacks_come_first(tmp_path: Path) -> None:
    attacked, shifted, text = _tables(tmp_path)
    order = ["clean", "pgd-linf-1/255", "fgsm-linf-1/255", "square-linf-1/255"]
    assert [column.key for column in attacked.columns if "top-5" not in column.key] == ["model", *order]
    assert [[row[threat] for threat in order] for row in attacked.rows] == [[0.8] * 4, [0.9] * 4]
    assert not shifted.rows
    assert "No intervals stand here" in " ".join(text.split())


@pytest.mark.dear
def test_shifted_data_mce_and_extra_corruptions_are_columns(tmp_path: Path) -> None:
    known = suite("imagenet-c")
    names = [*product(known.common, known.severities), *product(known.extra, known.severities)]
    more = [
        cell(model, f"imagenet-c:{name}-{severity}", np.arange(20) < (right if name in known.common else right - 2))
        for model, right in (("deit", 10), ("deit-tw", 12))
        for name, severity in names
    ]
    more += [cell(model, "imagenet-r", np.arange(20) < 6) for model in ("deit", "deit-tw")]
    _, shifted, text = _tables(tmp_path, *more)
    keys = [column.key for column in shifted.columns]
    assert keys == ["model", "imagenet-c mCE", "imagenet-c extra, mean error", "imagenet-r"]
    rows = [[row[key] for key in keys[2:]] for row in shifted.rows]
    assert np.allclose(rows, [[0.6, 0.3], [0.5, 0.3]])
    worse, better = (row["imagenet-c mCE"].number for row in shifted.rows)
    assert worse > better > 50
    assert "60.0" in text
