"""The `bunri` command: the options of each subcommand, and a few lines that call its module.

Those modules are imported inside the functions, so that `--help` answers before they are loaded.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.terminal import Interrupted, call_api, check_settings, err, give_up, notify, out, run

if TYPE_CHECKING:
    from cli.scan.outcome import PhotoOutcome
    from client import Delivery

SAMPLES = Path(__file__).parent.parent / "samples"

DEFAULT_API = "http://127.0.0.1:8000"
"""Address of the API that `bunri up` starts, unless its port is taken."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Bunri (분리)")
pipeline_app = typer.Typer(no_args_is_help=True, help="The pipeline's texts and rules.")
app.add_typer(pipeline_app, name="pipeline")
webhook_app = typer.Typer(no_args_is_help=True, help="What became of webhooks, and to send them again.")
app.add_typer(webhook_app, name="webhook")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
RunningApi = Annotated[str, typer.Option("--api", help="Base URL of the running API.")]
Language = Annotated[Literal["ko", "en"], typer.Option("--locale", help="Language of the answers.")]


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the API.", show_default="8000, or the next free one")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the embedded Redis and the logs live.")] = Path(".bunri"),
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Worker processes.", show_default="one a core, 4 at most")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs in flight in each worker.")] = 500,
) -> None:
    """Run the whole system in the foreground until Ctrl-C."""
    from cli.stack.foreground import serve
    from cli.stack.stack import StackOptions

    check_settings()
    count = workers or min(os.cpu_count() or 1, 4)
    options = StackOptions(data_dir, workers=count, concurrency=concurrency, port=port)
    try:
        run(serve(options, out=out, notify=notify))
    except Interrupted:
        notify("stopped")


@app.command()
def demo(*, as_json: AsJson = False, locale: Language = "ko") -> None:
    """Classify the photos in samples/ on a stack of its own, and check that each ends as it should."""
    from cli.scan.outcome import expectations_in
    from cli.scan.runs import classify_on_own_stack

    check_settings()
    if not SAMPLES.is_dir():
        give_up(f"there are no samples in {SAMPLES}: run the demo in a checkout of the project")
    expectations = expectations_in(SAMPLES)
    files = [SAMPLES / expectation.file for expectation in expectations]
    outcomes = run(classify_on_own_stack(files, console=err, locale=locale, question="", model=None))
    _print_outcomes(outcomes, as_json=as_json)
    missed = [each.file for each, outcome in zip(expectations, outcomes, strict=True) if not each.is_met_by(outcome)]
    if missed:
        err.print(f"not as expected: {', '.join(missed)}")
        raise typer.Exit(1)
    err.print(f"{len(outcomes)} of {len(outcomes)} photos ended as they should")


@app.command()
def scan(
    photos: Annotated[list[str], typer.Argument(metavar="URL_OR_FILE...", help="Links to photos, or photo files.")],
    *,
    as_json: AsJson = False,
    locale: Language = "ko",
    question: Annotated[str, typer.Option(help="A question or remark about the photos.")] = "",
    model: Annotated[str | None, typer.Option(help="`local`, or the configured model.")] = None,
    priority: Annotated[
        Literal["interactive", "bulk"], typer.Option(help="`bulk` lets jobs pass that somebody waits for.")
    ] = "interactive",
    api: Annotated[
        str | None, typer.Option(help="Base URL of a running API.", show_default="a stack of its own")
    ] = None,
) -> None:
    """Classify photos. Exits 0 if each one got an answer, 1 if not, 2 if it could not be tried."""
    from cli.scan.runs import classify, classify_on_own_stack

    check_settings()
    sources = [photo if "://" in photo else Path(photo) for photo in photos]
    if missing := [str(source) for source in sources if isinstance(source, Path) and not source.is_file()]:
        give_up(f"no such file: {', '.join(missing)}")
    request: dict[str, Any] = {"locale": locale, "question": question, "model": model, "priority": priority}
    if api is None:
        outcomes = run(classify_on_own_stack(sources, console=err, **request))
    else:
        outcomes = run(classify(api, sources, console=err, **request))
    _print_outcomes(outcomes, as_json=as_json)
    if any(outcome.category is None for outcome in outcomes):
        raise typer.Exit(1)


@app.command("eval")
def evaluate(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="DIR|MANIFEST", help="Folders named by label, a folder with labels.csv, or a JSONL."),
    ] = None,
    *,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of photos: a JSONL of labelled questions in words.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="`local`, or the configured model.")] = None,
    labels: Annotated[Path | None, typer.Option(help="JSON: label → category, for labels of your own.")] = None,
    split: Annotated[str | None, typer.Option(help="Only photos of this split of the manifest.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many photos, of each label in turn.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="Photos at once.", show_default="local 1, hosted 8")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask anew what an earlier run has answered.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the report as a page.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the confusion matrix as a picture.")] = None,
    fail_below: Annotated[float | None, typer.Option(min=0, max=1, help="Exit with 1 below this accuracy.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A.json B.json", help="Show what B changed, and run nothing.")
    ] = None,
) -> None:
    """Run a model over labelled photos or questions, and count. Exits 1 below --fail-below, 2 if it cannot be tried."""
    from cli.evaluation import command
    from cli.evaluation.records import CannotEvaluate
    from kit.logs import configure_logs

    check_settings()
    configure_logs("warning", process="eval")
    if [source, questions, compare].count(None) != 2:  # noqa: PLR2004 - one of the three is given
        give_up("name a folder or manifest of labelled photos, or --questions FILE, or two reports to --compare")
    try:
        if compare is not None:
            command.show_comparison(*compare, json, out)
        elif (data := source or questions) is not None:
            outputs = command.Outputs(json, html, png)
            request = command.EvaluationRequest(
                data, model, labels, split, limit, concurrency, fresh, outputs, questions=questions is not None
            )
            report = run(command.evaluate(request, out=out, err=err))
            if fail_below is not None and (miss := command.floor_missed(report, fail_below)):
                notify(miss)
                raise typer.Exit(1)
    except CannotEvaluate as reason:
        give_up(str(reason))


@app.command()
def config(*, as_json: AsJson = False) -> None:
    """Show the effective settings, secrets masked; or all mistakes in them."""
    import orjson
    from rich.markup import escape
    from rich.table import Column, Table

    from cli import configuration

    check_settings()
    settings = configuration.effective()
    if as_json:
        print(orjson.dumps({each.variable: each.value for each in settings}, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("variable", Column("value", overflow="fold"), "set", Column("meaning", overflow="fold"))
    for each in settings:
        is_set = "" if each.is_default else "yes"
        table.add_row(each.variable, escape(each.value or "–"), is_set, escape(each.description))
    out.print(table)


@pipeline_app.command("show")
def show_pipeline(
    *,
    api: Annotated[
        str | None, typer.Option(help="Base URL of a running API: show which version it and its workers use, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the resources as a service would, show their version, what they are made of and the categories."""
    import orjson

    from cli.pipeline_report import pipeline_json, print_pipeline
    from pipeline.knowledge.knowledge import Knowledge
    from pipeline.settings import PipelineSettings

    check_settings()
    try:
        knowledge = Knowledge.load(PipelineSettings().resources)
    except (ValueError, OSError) as error:
        give_up(str(error))
    running = call_api(api, lambda client: client.pipeline()) if api else None
    if as_json:
        print(orjson.dumps(pipeline_json(knowledge, running), option=orjson.OPT_INDENT_2).decode())
    else:
        print_pipeline(knowledge, running, out)


@webhook_app.command("list")
def list_attempts(job_id: str, *, api: RunningApi = DEFAULT_API, as_json: AsJson = False) -> None:
    """Show every attempt to deliver a job's webhook."""
    _print_delivery(call_api(api, lambda client: client.delivery(job_id)), as_json=as_json)


@webhook_app.command()
def resend(job_id: str, *, api: RunningApi = DEFAULT_API, as_json: AsJson = False) -> None:
    """Deliver a job's webhook again, now and with the whole schedule, whatever became of it before."""
    _print_delivery(call_api(api, lambda client: client.resend(job_id)), as_json=as_json)


def _print_delivery(delivery: "Delivery", *, as_json: bool) -> None:
    from cli.delivery_report import print_delivery

    if as_json:
        print(delivery.model_dump_json())
    else:
        print_delivery(delivery, out)


def _print_outcomes(outcomes: "list[PhotoOutcome]", *, as_json: bool) -> None:
    from cli.scan.tables import print_json, print_table

    if as_json:
        print_json(outcomes)
    else:
        print_table(outcomes, out)
