"""`twicing-bench lm`: language models on a text, clean and corrupted."""

from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.resolve import state
from robustbench_twicing.cli.options import Quiet, followed, print_evaluated, spelled
from robustbench_twicing.cli.printing import Json
from robustbench_twicing.cli.tracking import Log, trackers
from robustbench_twicing.spec.experiment import TextExperiment
from robustbench_twicing.spec.text import EMBEDDED_TEXT

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
    said: dict[str, Any] = {"models": model or list(TextExperiment().models), "text": text or EMBEDDED_TEXT}
    said |= {"window": window, "suites": suite, "severities": severity, "limit": limit, "seed": seed}
    means = {"device": device, "batch_size": batch_size, "fresh": fresh or None, "out": out}
    content = {key: value for key, value in said.items() if value is not None}
    with spelled():
        given = {key: value for key, value in means.items() if value is not None}
        understood = state({**content, "means": given}, settings())
    run = followed(quiet, lambda begin: api.carry_out(understood, begin))
    print_evaluated(run, as_machine, skip_bad=False, to_log=to_log)
