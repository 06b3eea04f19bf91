"""What the commands that evaluate models have in common: options, carrying out, printing."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, TypeVar

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.config import data_dirs, settings
from robustbench_twicing.catalog.mistakes import Mistakes, MistakesError, Place
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.catalog.resolve import Stated, state
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.catalog.threats import base_of
from robustbench_twicing.catalog.words import in_form, word_of
from robustbench_twicing.cli.panels import HOW, OUTPUT_PANEL, WHAT, WHERE, in_panel
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.cli.tracking import Log, log_page, trackers
from robustbench_twicing.errors import EXIT_FAILED_RECORDS, UserError
from robustbench_twicing.report.language import language_page
from robustbench_twicing.report.layouts import report_page
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.progress import Begin, following
from robustbench_twicing.report.run import run_page
from robustbench_twicing.report.text import say
from robustbench_twicing.report.trackers import Asked
from robustbench_twicing.results.text_comparison import compared_texts
from robustbench_twicing.spec.means import Means

Command = TypeVar("Command", bound=Callable[..., None])

# An option has the name of evaluate's argument and, but for what is named several times, its spelling. None is what
# nobody said, so that the experiment's own defaults, the plan's or the configured ones count. Each table says in which
# panel of a help its options stand; a help text of at most 54 characters takes one line at 80 columns.
ATTACKS: Mapping[str, Any] = in_panel(
    WHAT,
    {
        "eps": Annotated[
            list[str] | None,
            typer.Option("--eps", metavar="EPS", help="Size of the perturbation: 1/255 (default), 0.03 …"),
        ],
        "attacks": Annotated[
            list[str] | None,
            typer.Option("--attack", "-a", metavar="NAME", help="Attack. Default: the protocol's own list."),
        ],
        "protocol": Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Attack settings: standard (default), paper, or a TOML."),
        ],
        "engine": Annotated[
            str | None,
            typer.Option(metavar="NAME", help="own, or torchattacks to compare FGSM, PGD and SPSA."),
        ],
        "worst_case": Annotated[
            bool | None, typer.Option("--worst-case", help="Add a row: robust only if no attack breaks it.")
        ],
        "precision": Annotated[
            str | None,
            typer.Option(metavar="TYPE", help="float32, tf32 or bfloat16 for attacks, not verdicts."),
        ],
        "eot": Annotated[
            int | None,
            typer.Option(metavar="N", help="Average over N draws of a model that draws. Default 1."),
        ],
        "eight_bit": Annotated[
            bool | None, typer.Option("--eight-bit", help="Judge attacked images again, in 8 bits a pixel.")
        ],
        "source_model": Annotated[
            list[str] | None,
            typer.Option(metavar="NAME", help="Make the attacked images on this model instead."),
        ],
    },
)
SUITES: Mapping[str, Any] = in_panel(
    WHAT,
    {
        "suites": Annotated[
            list[str] | None,
            typer.Option("--suite", "-s", metavar="NAME", help="Suite: a name (see `catalog`) or a TOML file."),
        ],
        "corruptions": Annotated[
            list[str] | None,
            typer.Option("--corruption", "-c", metavar="NAME", help="A corruption, or common, extra, all (default)."),
        ],
        "severities": Annotated[
            list[int] | None, typer.Option("--severity", metavar="N", help="1 to 5. Default: all.")
        ],
    },
)
MODELS: Mapping[str, Any] = in_panel(
    WHAT,
    {
        "models": Annotated[
            list[str],
            typer.Option("--model", "-m", metavar="NAME", help="NAME, NAME+METHOD, NAME=CHECKPOINT."),
        ],
        "weights": Annotated[
            str | None,
            typer.Option(metavar="KIND", help="Of a training checkpoint: raw (default), ema, both."),
        ],
        "resample_pos_embed": Annotated[
            bool | None, typer.Option("--resample-pos-embed", help="Resample position embeddings of another size.")
        ],
    },
)
IMAGES: Mapping[str, Any] = in_panel(
    WHAT,
    {
        "data": Annotated[
            str | None,
            typer.Option(metavar="DATA", help="Name, TOML, folder:DIR. Default: suites' or digits."),
        ],
        "ids": Annotated[
            str | None,
            typer.Option(metavar="FILE", help="Only the samples that this file lists, one id a line."),
        ],
        "recipe": Annotated[
            str | None,
            typer.Option(metavar="NAME", help="How prepared: model, train-size, paper, none."),
        ],
        "limit": Annotated[
            int | None,
            typer.Option(metavar="N", help="Samples per threat. Default: all; dear attacks fewer."),
        ],
        "seed": Annotated[int | None, typer.Option(metavar="N", help="Seed of every random draw. Default 0.")],
    },
)
EXPERIMENT: Mapping[str, Any] = {**MODELS, **ATTACKS, **SUITES, **IMAGES}
"""What decides the numbers: the fields of `Experiment`, flat, but for `checkpoints`, which --model says."""

COMPUTING: Mapping[str, Any] = in_panel(
    HOW,
    {
        "device": Annotated[str | None, typer.Option(metavar="NAME", help="auto (default), cpu, cuda or cuda:N.")],
        "batch_size": Annotated[
            int | None,
            typer.Option(metavar="N", help="Images per evaluation; changes speed, not draws."),
        ],
        "executor": Annotated[
            str | None, typer.Option(metavar="WHO", help="local, this process; or ray, workers of a cluster.")
        ],
        "address": Annotated[
            str | None,
            typer.Option(metavar="ADDRESS", help="Of a Ray cluster: auto, HOST:PORT. Default: here."),
        ],
        "gpus_per_model": Annotated[
            float | None,
            typer.Option(metavar="X", help="Of a GPU, for a worker of Ray: 0.5, say. Default 1."),
        ],
        "workers": Annotated[
            int | None, typer.Option(metavar="N", help="Of Ray. Default: one a GPU; without GPUs, one a core.")
        ],
        "fresh": Annotated[
            bool | None, typer.Option("--fresh", help="Compute anew; else a run goes on, or is shown again.")
        ],
        "out": Annotated[
            str | None,
            typer.Option(metavar="PATH", rich_help_panel=WHERE, help="Run folder. Default: one under results/runs/."),
        ],
        "keep_images": Annotated[
            int | None,
            typer.Option(
                metavar="N", rich_help_panel=OUTPUT_PANEL, help="Keep N images a model and threat, broken ones first."
            ),
        ],
    },
)
DIRECTORIES: Mapping[str, Any] = in_panel(
    WHERE,
    {
        "directories": Annotated[
            list[str] | None,
            typer.Option("--data-dir", metavar="DIR", help="Of the data: DIR, or NAME=DIR for one of several."),
        ],
    },
)
FROST: Mapping[str, Any] = in_panel(
    WHERE,
    {
        "frost_dir": Annotated[
            str | None,
            typer.Option(metavar="DIR", help="Original pictures for generated frost, or `drawn`."),
        ]
    },
)
EVALUATING: Mapping[str, Any] = in_panel(
    HOW,
    {
        "preflight": Annotated[
            bool | None,
            typer.Option("--preflight/--no-preflight", help="Look first for what makes attacks meaningless."),
        ],
        "attention_path": Annotated[
            str | None,
            typer.Option(metavar="PATH", help="explicit, fused, triton (CUDA). Default: the faster."),
        ],
        "compiles": Annotated[
            bool | None,
            typer.Option("--compile", help="torch.compile for attacks, if a warm-up says faster."),
        ],
    },
)
MEANS: Mapping[str, Any] = {**DIRECTORIES, **COMPUTING, **EVALUATING, **FROST}
"""How it is computed: the fields of `Means`."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT_PANEL, help="No progress.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", rich_help_panel=OUTPUT_PANEL, help="Exit 0 although some samples failed.")
]
OUTPUT: Mapping[str, Any] = {"quiet": Quiet, "as_machine": Json, "skip_bad": SkipBad, "allow_code": AllowCode}
LOG: Mapping[str, Any] = {"log": Log}

_DEFAULTS: Mapping[str, Any] = {"models": Parameter.empty, **dict.fromkeys(OUTPUT, False)}
_SPELLED = {
    "models": "--model",
    "attacks": "--attack",
    "suites": "--suite",
    "corruptions": "--corruption",
    "severities": "--severity",
    "directories": "--data-dir",
    "compiles": "--compile",
}


def taking(options: Mapping[str, Any]) -> Callable[[Command], Command]:
    """A command whose `**said` are these options."""

    def given(command: Command) -> Command:
        own = [one for one in signature(command).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
        rows = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=annotation)
            for name, annotation in options.items()
        ]
        command.__signature__ = Signature([*own, *rows])  # type: ignore[attr-defined]
        return command

    return given


def option(place: Place) -> str:
    """How the command line spells what lies at a place of a plan file."""
    word = word_of(place)
    return _SPELLED.get(word, "--" + word.replace("_", "-"))


def stated(
    said: Mapping[str, Any],
    attacked: bool = False,
    at_hand: Sequence[str] | None = None,
    without_models: bool = False,
) -> Stated:
    """What the options say, understood; what they leave open may be configured. Raises `UserError`.

    `attacked`: without --attack the protocol's own list is meant, and not that nothing is attacked. `at_hand` are the
    data sets that `--data-dir DIR` could mean; left out: those of the suites, or of --data.
    """
    known, mistakes = settings(), Mistakes()
    given = {key: value for key, value in said.items() if value not in (None, [], ())}
    suites = given.get("suites", [])
    if not suites and "data" not in given and (configured := known.chosen("data")):
        given["data"] = configured
    if at_hand is None:
        at_hand = _at_hand(suites, attacked) if suites else [given.get("data", "digits")]
    given["directories"] = data_dirs(given.get("directories", ()), at_hand)
    with spelled():
        return state(in_form(given, attacked, mistakes), known, mistakes, without_models)


@contextmanager
def spelled() -> Iterator[None]:
    """Mistakes in the command line's spelling."""
    try:
        yield
    except MistakesError as error:
        raise error.said(option) from None


def _at_hand(suites: list[str], attacked: bool) -> list[str]:
    """The data sets that `--data-dir DIR` could mean."""
    try:
        base, specs = base_of(suites), {name: load_suite(name) for name in suites}
    except UserError:  # said with everything else that is wrong
        return suites
    on_disk = [name for name, spec in specs.items() if spec.layout != "generated"]
    return on_disk if len(on_disk) == len(specs) and not attacked else [*on_disk, base]


def means_of(said: Mapping[str, Any]) -> Means:
    """Only what the options say of the means, to be laid over those of a plan. Raises `UserError`."""
    mistakes = Mistakes()
    given = {key: value for key, value in said.items() if value is not None}
    with spelled():
        means = mistakes.filled(Means, given, ("means",))
        mistakes.refuse()
    return means


def evaluate_and_print(said: dict[str, Any], attacked: bool, page: Callable[[api.Run], Page] = run_page) -> None:
    """Carry out what the options say, follow the progress, print its page; exit 1 if samples failed."""
    quiet, as_machine, skip_bad, allow_code = (said.pop(name) for name in OUTPUT)
    to_log = trackers(said.pop("log"))
    with code_allowed(allow_code):
        understood = stated(said, attacked)
    run = followed(quiet, lambda begin: api.carry_out(understood, begin))
    print_evaluated(run, as_machine, skip_bad, page, to_log)


def followed(quiet: bool, carry_out: Callable[[Begin], api.Run]) -> api.Run:
    """The run that `carry_out` returns when it is given who follows the progress. Remarks go to stderr."""
    loading(quiet)
    with following(quiet) as begin:
        run = carry_out(begin)
    for remark in run.remarks:
        say(remark, stderr=True)
    return run


def print_evaluated(
    run: api.Run,
    as_machine: bool,
    skip_bad: bool,
    page: Callable[[api.Run], Page] = run_page,
    to_log: Sequence[Asked] = (),
) -> None:
    """Print a run, by `page` one over images, and log its whole report; exit 1 if samples failed."""
    shown = _PAGES.get(run.manifest.plan.task, page)
    show_page(shown(run), as_machine)
    if to_log:
        log_page(to_log, [run], report_page([run]))
    exit_if_failed(run, skip_bad)


def _text_page(run: api.Run) -> Page:
    return language_page([run], compared_texts([run]))


_PAGES: Mapping[str, Callable[[api.Run], Page]] = {"text": _text_page}
"""Of tasks that have a page of their own."""


def exit_if_failed(run: api.Run, skip_bad: bool) -> None:
    """Name the samples of a run that failed, if there are any, and exit 1 unless that is no matter."""
    if run.summary["failed"].any():
        failed = run.records[run.records["status"] == "failed"]
        for _, row in failed.drop_duplicates(["sample_id", "error"]).head(20).iterrows():
            say(f"failed: {row['sample_id']}: {row['error']}", stderr=True)
        if not skip_bad:
            sys.exit(EXIT_FAILED_RECORDS)


def named_arms(texts: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The patterns of `--arm NAME=PATTERN`, by the names of their arms. Raises `UserError`."""
    arms: dict[str, list[str]] = {}
    for text in texts:
        name, sign, pattern = text.partition("=")
        if not (name and sign and pattern):
            raise UserError(f"--arm {text} names no arm.", "Write NAME=PATTERN, such as --arm 'deit-tw=deit-tw@*'.")
        arms.setdefault(name, []).append(pattern)
    return arms
