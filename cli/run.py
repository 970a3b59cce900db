"""`wb run`: a pipeline, from data preparation to deployment, or a user's own training script."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from workbench.errors import UsageError

from .errors import one_line
from .options import Debug, Json, TrackingUri, Workspace
from .stopping import StopSwitch
from .targets import (
    PolicyChoice,
    Target,
    Workers,
    check_engine,
    find_target,
    overrides_of,
    policies_from,
    split_words,
    workers_from,
)
from .watching import watcher
from .workspace import Place, open_store, place_from, prepare

if TYPE_CHECKING:
    from workbench.lifecycle import Pipeline, PipelineResult

AFTER_DASHES = "wb.after_dashes"


class RunCommand(TyperCommand):
    """A command that keeps what follows ``--`` apart: a script's own arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put what follows ``--`` into the context, and parse the rest."""
        own, after = args, []
        if "--" in args:
            cut = args.index("--")
            own, after = args[:cut], args[cut + 1 :]
        ctx.meta[AFTER_DASHES] = after
        parsed: list[str] = super().parse_args(ctx, own)
        return parsed


SETTINGS: dict[str, Any] = {
    "cls": RunCommand,
    "options_metavar": "[TARGET] [a.b=c ...] [OPTIONS] [-- SCRIPT ARGUMENTS]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Everything that was asked for, checked as words."""

    target: Target
    overrides: list[str]
    workers: Workers | None
    policies: list[PolicyChoice] | None
    resume: bool
    dry_run: bool
    as_json: bool
    arguments: list[str]


def run(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="",
            help="TARGET: a pipeline.yaml, a train.py, or a bundled example (none: digits). "
            "a.b=c: an override of a setting, such as train.epochs=3.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N|MIN:MAX", help="Processes; with a range the job starts with MIN."),
    ] = None,
    engine: Annotated[str, typer.Option(metavar="NAME", help="Only `local` so far.")] = "local",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,k=v...]", help="Policy to follow; repeatable; `none`: watch only."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this pipeline's last unfinished run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate, print the plan, run nothing.")
    ] = False,
    as_json: Json = False,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """Run a pipeline, from data preparation to deployment.

    Without TARGET it runs the bundled example `digits`.
    """
    del debug
    check_engine(engine)
    word, overrides = split_words(words or [])
    wish = Wish(
        target=find_target(word),
        overrides=overrides,
        workers=workers_from(workers) if workers else None,
        policies=policies_from(policy or []),
        resume=resume,
        dry_run=dry_run,
        as_json=as_json,
        arguments=list(ctx.meta.get(AFTER_DASHES, [])),
    )
    place = place_from(workspace, tracking_uri)
    if wish.target.script:
        return _run_script(wish, place)
    if wish.arguments:
        raise UsageError(
            f"{' '.join(wish.arguments)!r} after -- is for a script, but {wish.target.path.name} "
            "is a pipeline; write settings as a.b=c"
        )
    return _run_pipeline(wish, place)


def _run_pipeline(wish: Wish, place: Place) -> int:
    from workbench.lifecycle import load_pipeline

    overrides = [*wish.overrides, *overrides_of(wish.workers, wish.policies)]
    pipeline = load_pipeline(wish.target.path, overrides)
    if wish.dry_run:
        _check(pipeline)
        return _show_plan(pipeline, place, wish.as_json)
    return show(_walk(pipeline, wish, place), place, wish.as_json)


def _walk(pipeline: Pipeline, wish: Wish, place: Place) -> PipelineResult:
    from .output import only_the_result_on_stdout

    watching = watcher(pipeline.stages, transient=not wish.as_json and sys.stdout.isatty())
    with (
        only_the_result_on_stdout(wish.as_json),
        watching,
        StopSwitch(watching.note) as switch,
    ):
        _check(pipeline)
        # Importing torch and mlflow takes seconds, which are spent under the view.
        from workbench.adaptors.torch.framework import TorchFramework
        from workbench.lifecycle import run_pipeline
        from workbench.policies import policy_path

        store = open_store(place)
        _note_range(pipeline.train.workers, watching.note)
        return run_pipeline(
            pipeline,
            workspace=place.workspace,
            store=store,
            framework=TorchFramework(policy_path=policy_path),
            watcher=watching,
            resume=wish.resume,
            should_stop=switch.thrown,
        )


def _run_script(wish: Wish, place: Place) -> int:
    from .script import ScriptJob, dry_run, run_script_job

    if wish.overrides:
        raise UsageError(
            f"{wish.overrides[0]!r} is an override of a pipeline's setting, but "
            f"{wish.target.path.name} is a script; its own arguments come after --"
        )
    if wish.resume:
        raise UsageError(
            "--resume is for a pipeline; a script goes on from checkpoints of its own; "
            "leave --resume out"
        )
    workers = wish.workers or Workers(low=1, high=1)
    job = ScriptJob(
        path=wish.target.path,
        arguments=tuple(wish.arguments),
        workers=workers.low,
        policies=wish.policies,
    )
    if wish.dry_run:
        return dry_run(job, wish.as_json)
    prepare(place)
    store = open_store(place)
    watching = watcher(("train",), transient=not wish.as_json and sys.stdout.isatty())
    from .output import only_the_result_on_stdout

    with (
        only_the_result_on_stdout(wish.as_json),
        watching,
        StopSwitch(watching.note) as switch,
    ):
        _note_range(str(workers), watching.note)
        result = run_script_job(job, place, store, watching, switch.thrown)
    return show(result, place, wish.as_json)


def show(result: PipelineResult, place: Place, as_json: bool) -> int:
    """Print the result, and the failure's one line; return the exit code."""
    from .output import print_json
    from .summary import print_summary, result_json
    from .ui import how_to_see

    see = how_to_see(place, result.run_id)
    if as_json:
        where = {"workspace": str(place.workspace), "tracking_uri": place.tracking_uri}
        print_json(result_json(result, see=see, **where))
    else:
        print_summary(result, see)
    if result.exit_code and result.message:
        sys.stdout.flush()
        print(f"wb: {one_line(result.message)}", file=sys.stderr)
    return result.exit_code


def _check(pipeline: Pipeline) -> None:
    """Raise for the first problem that can be known without running."""
    from workbench.errors import ConfigurationError

    from .validate import problems_of

    problems = problems_of(pipeline)
    if problems:
        more = f" (and {len(problems) - 1} more: wb validate)" if len(problems) > 1 else ""
        raise ConfigurationError(problems[0] + more)


def _note_range(workers: int | str, note: Any) -> None:
    low, colon, _ = str(workers).partition(":")
    if colon:
        note(
            f"workers {workers}: the job starts with {low}; this version does not resize a running "
            "job (a policy that asks hears: fixed number of workers)"
        )


def _show_plan(pipeline: Pipeline, place: Place, as_json: bool) -> int:
    from workbench.lifecycle import plan

    from .output import print_json
    from .summary import print_plan

    planned = plan(pipeline, place.workspace)
    if as_json:
        stages = [asdict(stage) for stage in planned.stages]
        print_json({"pipeline": pipeline.name, "plan": stages, "exit_code": 0})
    else:
        print_plan(planned)
    return 0
