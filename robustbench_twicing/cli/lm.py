"""`twicing-bench lm`: language models on a text, clean and corrupted."""

import sys
from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.language import language_plan
from robustbench_twicing.catalog.mistakes import Mistakes
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.cli.options import Quiet, followed, means_of
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.cli.tracking import Log, log_page, trackers
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.language import language_page
from robustbench_twicing.results.text_comparison import compared_texts
from robustbench_twicing.spec.experiment import TextExperiment

_Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="tiny-lm, a folder or file of Hugging Face's, each with a method: "
                 "'gpt2+twicing@last2'. Repeatable, the baseline first. Default: tiny-lm and tiny-lm+twicing."),
]  # fmt: skip
_Text = Annotated[str | None, typer.Option(help="A text or parquet file. Default: the text that ships with the tool.")]
_Window = Annotated[
    str | None,
    typer.Option(
        help="What a model sees: disjoint(128), strided(128,64), paper. Default: disjoint, as long as it can."
    ),
]
_Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", "-s", help="word-swap or text-c; repeatable. Default: word-swap; none for clean alone."),
]
_Severities = Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; repeatable. Default all.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Documents for each threat. Default: all.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the corruptions.")]

_Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default auto.")]
_BatchSize = Annotated[int | None, typer.Option(min=1, help="Windows at once. Default: by the size of their logits.")]
_Fresh = Annotated[bool, typer.Option("--fresh", help="Compute a finished run anew; take nothing over from others.")]
_Out = Annotated[str | None, typer.Option(metavar="PATH", help="Run folder. Default: one under results/runs/.")]


def lm(
    model: _Models = None,
    text: _Text = None,
    window: _Window = None,
    suite: _Suites = None,
    severity: _Severities = None,
    limit: _Limit = None,
    seed: _Seed = 0,
    device: _Device = None,
    batch_size: _BatchSize = None,
    fresh: _Fresh = False,
    out: _Out = None,
    quiet: Quiet = False,
    as_machine: Json = False,
    log: Log = None,
) -> None:
    """Score language models on a text, clean and corrupted: perplexity, bits per byte, and how two models differ.

    The same command again continues an interrupted run, or shows a finished one.
    """
    to_log = trackers(log)
    said: dict[str, Any] = {"models": model, "text": text, "window": window, "severities": severity, "limit": limit}
    said["suites"] = [] if suite == ["none"] else suite
    mistakes = Mistakes()
    experiment = mistakes.filled(TextExperiment, {key: value for key, value in said.items() if value is not None})
    mistakes.refuse()
    experiment = experiment.model_copy(update={"seed": seed})
    means = means_of({"device": device, "batch_size": batch_size, "fresh": fresh or None, "out": out})
    stated = Stated(experiment, means, language_plan(experiment))
    run = followed(quiet, lambda begin: api.carry_out(stated, begin))
    page = language_page([run], compared_texts([run]))
    show_page(page, as_machine)
    log_page(to_log, [run], page)
    if run.summary["failed"].any():
        sys.exit(EXIT_FAILED_RECORDS)
