"""Assemble `wb` from a table of commands, importing a command's file only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from workbench import __version__
from workbench.errors import ConfigurationError

from .errors import guarded


class Entry(NamedTuple):
    """A command in the help: its file, its section, its sentence (that of its docstring)."""

    module: str
    section: str
    sentence: str


RUN, LOOK, DEPLOY = "Run", "Look", "Deploy"

COMMANDS: dict[str, Entry] = {
    "run": Entry("run", RUN, "Run a pipeline, from data preparation to deployment."),
    "validate": Entry("validate", RUN, "Say everything that can be known without running."),
    "schema": Entry("schema", RUN, "Print the JSON Schema of pipeline.yaml."),
    "show": Entry("show", LOOK, "Tell the story of a run: stages, metrics, decisions, verdicts."),
    "ui": Entry("ui", LOOK, "Open MLflow's own UI on this workspace."),
    "audit": Entry("audit", LOOK, "Audit a table of predictions for group fairness."),
    "doctor": Entry("doctor", LOOK, "Say what this machine has, and what to do about the rest."),
    "models": Entry("models", DEPLOY, "List registered models, their versions and aliases."),
    "serve": Entry("serve", DEPLOY, "Serve a registered model over REST with MLflow's server."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name, and imports the one that is run."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Click's signature
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return the command.

        Raises:
            ConfigurationError: There is no such command.
        """
        if cmd_name in COMMANDS:
            return load_command(cmd_name)
        if cmd_name.startswith("-") or ctx.resilient_parsing:
            return None
        raise ConfigurationError(_no_such_command(cmd_name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the table by section, without importing a command."""
        for section in (RUN, LOOK, DEPLOY):
            rows = [(name, it.sentence) for name, it in COMMANDS.items() if it.section == section]
            with formatter.section(section):
                formatter.write_dl(rows, col_max=12)


def load_command(name: str) -> Any:
    """Return the command ``name`` of the table, its file imported now.

    Example:
        >>> load_command("schema").name
        'schema'
    """
    module = import_module(f"workbench.cli.{COMMANDS[name].module}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name=name, **getattr(module, "SETTINGS", {}))(getattr(module, name))
    return typer.main.get_command(single)


def _no_such_command(name: str) -> str:
    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean 'wb {near[0]}'?" if near else "see 'wb --help'"
    return f"there is no command {name!r}; allowed: {', '.join(COMMANDS)}; {hint}"


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, invoke_without_command=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wb {__version__}")
        raise typer.Exit


@app.callback()
def wb(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Training that watches its own gradients, and one record of what was decided and why.

    Start with `wb run`: the digits example, from data to a deployed model, in about a minute.
    """
    del version, debug  # read by their callback, and from the arguments by `guarded`
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(argv: Sequence[str] | None = None) -> int:
    """Run ``wb`` and return its exit code; every error ends here as one line.

    Example:
        >>> run(["--version"])
        wb ...
        0
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command = typer.main.get_command(app)
    return guarded(lambda: command.main(args, prog_name="wb", standalone_mode=False), args)
