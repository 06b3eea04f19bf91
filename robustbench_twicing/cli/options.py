"""What the commands that evaluate models have in common: options, carrying out, printing."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.cli.progress import CellProgress, loading
from robustbench_twicing.errors import EXIT_FAILED_RECORDS, UserError
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.run import run_page
from robustbench_twicing.report.text import say
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell

Command = TypeVar("Command", bound=Callable[..., None])

# An option has the name of evaluate's argument and, but for what is named several times, its spelling. None is what
# nobody said, so that the experiment's own defaults, the plan's or the configured ones count.
ATTACKS: Mapping[str, Any] = {
    "eps": Annotated[
        list[str] | None,
        typer.Option("--eps", help="Size of the perturbation, such as 1/255 or 0.03; repeatable. Default 1/255."),
    ],
    "attacks": Annotated[
        list[str] | None,
        typer.Option("--attack", "-a", help="Attack name; repeatable. Default: the protocol's own list."),
    ],
    "protocol": Annotated[
        str | None, typer.Option(help="Attack settings: a name (see `catalog`) or a TOML file. Default standard.")
    ],
    "engine": Annotated[
        str | None, typer.Option(help="`own`, or `torchattacks` to run its FGSM, PGD and SPSA for comparison.")
    ],
    "worst_case": Annotated[
        bool | None,
        typer.Option("--worst-case", help="Add a row that counts a sample as robust only if no attack breaks it."),
    ],
    "precision": Annotated[
        str | None,
        typer.Option(help="What attacks compute in: float32, tf32 or bfloat16. Verdicts are always float32's."),
    ],
    "eight_bit": Annotated[
        bool | None,
        typer.Option("--eight-bit", help="Judge attacked images a second time, rounded to 8 bits a pixel."),
    ],
    "source_model": Annotated[
        list[str] | None,
        typer.Option(help="Make the attacked images on this model instead: NAME or NAME=CHECKPOINT; repeatable."),
    ],
}
SUITES: Mapping[str, Any] = {
    "suites": Annotated[
        list[str] | None, typer.Option("--suite", "-s", help="Suite name (see `catalog`) or a TOML file; repeatable.")
    ],
    "corruptions": Annotated[
        list[str] | None,
        typer.Option("--corruption", "-c", help="A corruption, or common, extra or all; repeatable. Default all."),
    ],
    "severities": Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; repeatable. Default all.")],
}
MODELS: Mapping[str, Any] = {
    "models": Annotated[
        list[str], typer.Option("--model", "-m", help="NAME, NAME+METHOD or NAME=CHECKPOINT; repeat to compare models.")
    ],
    "weights": Annotated[str | None, typer.Option(help="Of a training checkpoint: raw, ema or both. Default raw.")],
    "resample_pos_embed": Annotated[
        bool | None, typer.Option("--resample-pos-embed", help="Resample position embeddings of another size.")
    ],
}
IMAGES: Mapping[str, Any] = {
    "data": Annotated[
        str | None,
        typer.Option(
            help="Data set (see `catalog`), a TOML file, or folder:DIR with a folder of images for each class. "
            "Default: what the suites are made from, or digits, which ships with the tool."
        ),
    ],
    "ids": Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Only the samples that this text file lists, one id a line."),
    ],
    "recipe": Annotated[
        str | None,
        typer.Option(help="How images on disk are prepared: model, train-size, paper, none. Default: the suite's."),
    ],
    "limit": Annotated[
        int | None,
        typer.Option(help="Samples per threat. Default: all, or what the protocol suggests for a dear attack."),
    ],
    "seed": Annotated[int | None, typer.Option(help="Seed of every random draw. Default 0.")],
}
EXPERIMENT: Mapping[str, Any] = {**MODELS, **ATTACKS, **SUITES, **IMAGES}
"""What decides the numbers: the fields of `Experiment`, flat, but for `checkpoints`, which --model says."""

COMPUTING: Mapping[str, Any] = {
    "device": Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default auto.")],
    "batch_size": Annotated[int | None, typer.Option(help="Images per evaluation; changes speed, not draws.")],
    "keep_images": Annotated[
        int | None,
        typer.Option(help="Keep so many images of each model under each threat, broken ones first: PNG and .npz."),
    ],
    "executor": Annotated[
        str | None, typer.Option(help="Who computes: local, this process; or ray, workers of a Ray cluster.")
    ],
    "address": Annotated[
        str | None, typer.Option(help="Of a Ray cluster: auto or HOST:PORT. Default: one on this machine.")
    ],
    "gpus_per_model": Annotated[
        float | None, typer.Option(help="Part of a GPU that a worker of Ray takes, such as 0.5. Default 1.")
    ],
    "workers": Annotated[
        int | None, typer.Option(help="Workers of Ray. Default: one for each GPU; without GPUs, one a core.")
    ],
    "fresh": Annotated[
        bool | None, typer.Option("--fresh", help="Compute a finished run anew; take nothing over from other runs.")
    ],
    "out": Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Run folder. Default: one under results/runs/ named after the settings."),
    ],
}
DIRECTORIES: Mapping[str, Any] = {
    "directories": Annotated[
        list[str] | None,
        typer.Option("--data-dir", help="Where the data lies: DIR, or NAME=DIR for one of several; repeatable."),
    ],
}
FROST: Mapping[str, Any] = {
    "frost_dir": Annotated[
        str | None, typer.Option(help="The original frost pictures for generated frost, or `drawn`.")
    ],
}
EVALUATING: Mapping[str, Any] = {
    "preflight": Annotated[
        bool | None,
        typer.Option(
            "--preflight/--no-preflight", help="Look for what makes attacked accuracy meaningless before attacking."
        ),
    ],
    "attention_path": Annotated[
        str | None,
        typer.Option(
            help="How all attention is computed: explicit, fused, or triton (CUDA, unmeasured). Default: the faster "
            "of the first two."
        ),
    ],
    "compiles": Annotated[
        bool | None,
        typer.Option(
            "--compile", help="Compute attacks with torch.compile if a warm-up (seconds to minutes) finds it faster."
        ),
    ],
}
MEANS: Mapping[str, Any] = {**DIRECTORIES, **COMPUTING, **EVALUATING, **FROST}
"""How it is computed: the fields of `Means`."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although some samples failed.")]
OUTPUT: Mapping[str, Any] = {"quiet": Quiet, "as_machine": Json, "skip_bad": SkipBad, "allow_code": AllowCode}

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
    with code_allowed(allow_code):
        understood = stated(said, attacked)
    run = followed(quiet, lambda begin: api.carry_out(understood, begin))
    print_evaluated(run, as_machine, skip_bad, page)


Begin = Callable[[dict[Cell, tuple[int, int]]], CellProgress]


def followed(quiet: bool, carry_out: Callable[[Begin], api.Run]) -> api.Run:
    """The run that `carry_out` returns when it is given who follows the progress. Remarks go to stderr."""
    loading(quiet)
    with ExitStack() as stack:

        def begin(to_do: dict[Cell, tuple[int, int]]) -> CellProgress:
            return stack.enter_context(CellProgress(to_do, quiet))

        run = carry_out(begin)
    for remark in run.remarks:
        say(remark, stderr=True)
    return run


def print_evaluated(run: api.Run, as_machine: bool, skip_bad: bool, page: Callable[[api.Run], Page] = run_page) -> None:
    """Print a run; exit 1 if samples failed."""
    show_page(page(run), as_machine)
    exit_if_failed(run, skip_bad)


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
