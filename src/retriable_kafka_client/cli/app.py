"""The command line: what can be typed, and where each command goes."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from retriable_kafka_client.cli.ending import exits

__all__ = ["app"]

app = typer.Typer(
    name="rkc",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: Json = False,
) -> None:
    """Run a function for every Kafka message, in parallel, with delayed retries and dead letters, losing none.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 brokers not reachable.
    """
    context.obj = as_json
    if show_version:
        number = _version()
        typer.echo(json.dumps({"version": number}) if as_json else f"rkc {number}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(
    short_help="Run consumers until a signal stops them.",
    help="Run consumers until SIGINT or SIGTERM, which drain and stop; a second signal stops at once.\n\n"
    "Modules are looked for in the current directory too. Several consumers run side by side in this process, and the "
    "first that fails stops the others. At the end it prints what each has done.",
)
def run(
    context: typer.Context,
    consumers: Annotated[
        list[str],
        typer.Argument(metavar="MODULE:CONSUMER...", help="Where the consumers are, as in billing:consumer."),
    ],
    log_level: Annotated[
        str, typer.Option(help="DEBUG, INFO, WARNING or ERROR; the log goes to stderr.")
    ] = "INFO",
    as_json: Json = False,
) -> None:
    """Run the consumers that ``consumers`` name."""
    from retriable_kafka_client.cli.loading import load_consumers
    from retriable_kafka_client.cli.running import run as run_all

    level = log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter("must be DEBUG, INFO, WARNING or ERROR", param_hint="--log-level")
    with exits():
        run_all(load_consumers(consumers), log_level=level, as_json=as_json or bool(context.obj))


@app.command(
    short_help="Show the library at work on an embedded broker.",
    help="Show the library at work: thousands of orders, some of which fail twice, one that always fails, one for "
    "later, on an embedded broker.\n\nAt the end the counts of sender, handler, consumer and brokers are held against "
    "each other; if they do not add up, the exit code is 1.",
)
def demo(
    context: typer.Context,
    orders: Annotated[int, typer.Option(min=20, max=1_000_000, help="How many orders to send.")] = 5000,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A real cluster instead of the embedded broker. Topics are made and deleted again. User and password: "
            "RKC_USERNAME, RKC_PASSWORD.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the demo."""
    from retriable_kafka_client.cli.demo import run as run_demo

    with exits():
        run_demo(orders=orders, bootstrap_servers=bootstrap_servers, as_json=as_json or bool(context.obj))


def _version() -> str:
    try:
        return version("retriable-kafka-client")
    except PackageNotFoundError:
        return "(not installed)"
