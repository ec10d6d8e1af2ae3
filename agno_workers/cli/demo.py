"""`agno-workers demo`: everything started here, documents asked, a pipeline of runs over them, and what the rows tell of it."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agno_workers import settings as settings_module
from agno_workers import wiring
from agno_workers.cli import screen
from agno_workers.cli.arrivals import Arrivals, counted, rate
from agno_workers.cli.demo_model import Chosen, choose, serving
from agno_workers.cli.processes import Ended, ProcessManager, ending_by_signal
from agno_workers.cli.programs import workers
from agno_workers.cli.progress import progress
from agno_workers.cli.servers import Servers, prepare, running
from agno_workers.cli.timeline import show_timeline
from agno_workers.core.run import RunStatus
from agno_workers.errors import AgnoError, ModelRejected
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.local.demo import pipeline
from agno_workers.local.demo.documents import Picked, pick
from agno_workers.local.demo.pipeline import Told, Watch, Watched
from agno_workers.sdk.handles import RunHandle
from agno_workers.settings import Settings

app = typer.Typer(pretty_exceptions_enable=False)
_LOOK_EVERY_S = 0.1
_LEASE_S = 4.0  # short, so that a worker that is killed on stage is missed soon


@app.command()
def demo(
    path: Path | None = typer.Argument(
        None, help="A file or folder of text or Markdown; default: this project's documents."
    ),
    model: str = typer.Option(
        "", "--model", help="provider:model; default: a provider whose key is set, else a small local model."
    ),
    documents: int = typer.Option(6, "--documents", min=1, max=50, help="Read at most so many."),
) -> None:
    """See it work here: documents brought in and asked, a group of agent runs over them, then eight tools side by side.

    Starts a Postgres and a Valkey of its own (or uses AGNO_DATABASE_URL and AGNO_BROKER_URL) and real Celery workers, and
    ends them with itself. Kill a worker while it runs: the demo still comes out right, and checks that it did.
    """
    started = time.monotonic()
    settings = settings_module.load()
    chosen = choose(model, settings)
    console = screen.console()
    with ending_by_signal() as hurry:
        try:
            with _stage(console, settings, chosen, path, documents) as stage:
                programs = [
                    replace(program, patience_s=1.0)
                    for program in workers(stage.settings, agents=8, tools=8, knowledge=2)
                ]
                crew = ProcessManager(programs, lambda _program, _line: None, stage.say)
                try:
                    crew.start()
                    wrong = _play(stage, crew, started)
                finally:
                    stage.leave()
                    hurry.set()  # nothing is under way that somebody waits for
                    crew.stop(hurry)
        except Ended as ended:
            console.print("[dim]Ended before it was over; what was left of it is cancelled.[/]")
            raise typer.Exit(128 + ended.signum) from None
    if wrong:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Stage:
    """What the demo plays on."""

    console: Console
    settings: Settings
    servers: Servers
    chosen: Chosen
    picked: Picked
    folder: Path
    """Where copies of the documents lie."""
    session: str

    def say(self, sentence: str) -> None:
        self.console.print(f"  {sentence}", style="dim", markup=False)

    def watch(self, leave_out: frozenset[str] = frozenset()) -> Watch:
        services = wiring.services()
        return Watch(services.database.queries, services.streams, self.session, leave_out)

    def clean(self) -> None:
        """On servers of our own nobody else can be at work: what is unfinished was left by a demo that was killed."""
        if self.servers.state_dir and (left := pipeline.cancel_unfinished(wiring.services(), "demo-")):
            self.say(f"cancelled what a demo that was killed had left: {left} run(s)")
        if self.servers.state_dir:
            pipeline.forget_former(wiring.services(), "demo-")

    def leave(self) -> None:
        """Cancel what is unfinished: nobody will work on it."""
        try:
            pipeline.cancel_unfinished(wiring.services(), self.session)
        except AgnoError as error:
            self.say(f"not cancelled: {error}")
        wiring.forget()


@contextmanager
def _stage(
    console: Console, settings: Settings, chosen: Chosen, path: Path | None, documents: int
) -> Iterator[Stage]:
    """Servers, schema, model and documents, and an environment in which this process and the workers find them."""
    session = f"demo-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="agno-demo-") as folder:
        picked = pick(path, Path(folder), most=documents, max_chars=chosen.max_chars)
        _say_what(console, chosen, picked)
        with running(settings) as servers, serving(chosen) as model_environment:
            prepare(servers)
            os.environ.update(model_environment)
            os.environ.update(_environment(settings, chosen, session, folder))
            stage = Stage(console, settings_module.load(), servers, chosen, picked, Path(folder), session)
            stage.clean()
            yield stage


def _environment(settings: Settings, chosen: Chosen, session: str, folder: str) -> dict[str, str]:
    """Queues of its own, so that workers that may be there already and lack the demo's agents leave its steps alone."""
    imports = ["agno_workers.local.demo.agents"]
    if chosen.name.startswith("scripted:") and settings.imports:
        imports.insert(0, settings.imports)
    lease_s = min(settings.lease_s, _LEASE_S)
    return {
        "AGNO_IMPORTS": ",".join(imports),
        "AGNO_AGENT_QUEUE": f"{session}-agents",
        "AGNO_TOOL_QUEUE": f"{session}-tools",
        "AGNO_KNOWLEDGE_QUEUE": f"{session}-knowledge",
        "AGNO_LEASE_S": str(lease_s),
        "AGNO_RENEW_EVERY_S": str(min(settings.renew_every_s, lease_s / 3)),
        "DEMO_MODEL": chosen.name,
        "DEMO_FOLDER": folder,
        "DEMO_KNOWLEDGE": session,
        "DEMO_EMBEDDER": _embedder(),
    }


def _embedder() -> str:
    """A model on this machine, where it is installed; else one that goes by words only."""
    try:
        resolve("local")
    except ModelRejected:
        return "hash:384"
    return "local"


def _play(stage: Stage, crew: ProcessManager, started: float) -> list[str]:
    """The three acts, the timeline and the check. Gives what went wrong."""
    console, picked = stage.console, stage.picked
    many = len(picked.documents)
    console.print()
    console.print(
        Rule(f"1  knowledge: {many} document(s) in, {len(picked.questions)} question(s)", align="left")
    )
    first_s = _bring_in(stage, crew)
    pipeline.submit_questions(picked.questions, stage.session)
    _follow(stage, crew, stage.watch(), len(picked.questions))
    asked = stage.watch().now()
    sourceless = _show_helped(stage, asked)

    console.print(Rule(f"2  chord: {many} run(s) of analyst, then editor over what they wrote", align="left"))
    before = frozenset(watched.run.id for watched in asked)
    pipeline.submit_pipeline(picked.documents, stage.session)
    _follow(stage, crew, stage.watch(before), many + 1)
    written = stage.watch(before).now()
    _show_answers(stage, written)

    console.print(Rule("3  researcher: eight tools side by side", align="left"))
    console.print(
        screen.indented(
            Text(
                "A script picks the eight calls, no model does. The tools are real: they read the files.",
                "dim",
            )
        )
    )
    pipeline.submit_research(picked.documents, stage.session)
    _follow(stage, crew, stage.watch(before | {watched.run.id for watched in written}), 1)

    tellings = pipeline.told(wiring.services().database.queries, stage.session)
    show_timeline(console, tellings)
    wrong = [*pipeline.problems(tellings, picked.documents), *sourceless]
    _show_check(stage, tellings, wrong)
    console.print(
        f"  first step begun {first_s - started:.1f} s after the start of this command", style="dim"
    )
    _say_where_next(stage, tellings)
    return wrong


def _bring_in(stage: Stage, crew: ProcessManager) -> float:
    """The documents, twice: the second time shows what unchanged ones cost. Gives when it was first seen at work."""
    first: float | None = None
    for again in (False, True):
        job = pipeline.submit_ingestion(stage.folder, stage.session, os.environ["DEMO_EMBEDDER"])
        arrivals = Arrivals()
        with stage.console.status("") as shown:
            while not RunStatus((progress := job.progress()).status).is_terminal:
                arrivals.look(progress, time.monotonic())
                shown.update(Text(f"{counted(progress)} {rate(arrivals, progress)}", "dim"))
                if first is None and progress.started_at:
                    first = time.monotonic()
                crew.check()
                time.sleep(_LOOK_EVERY_S)
        took = screen.took(job.run.created_at, progress.ended_at)
        line = f"{'again: ' if again else ''}{counted(progress)}, in {took}"
        stage.console.print(screen.indented(Text(line)))
        for failure in job.failures() if not again else []:
            stage.say(f"not read: {failure.uri}: {failure.message}")
        if job.run.error:
            raise AgnoError.from_json(job.run.error)
    return first or time.monotonic()


def _show_helped(stage: Stage, asked: Sequence[Watched]) -> list[str]:
    """Questions, answers and what they cite. Gives which have no source."""
    by = stage.chosen.byline if stage.chosen.calls_tools else "  (scripted; the search is real)"
    here, told = wiring.services(), []
    for watched in asked:
        handle = RunHandle(watched.run.id, here.database, here.streams)
        cited = [each for each in handle.references if each.cited]
        question = screen.one_line(handle.messages[0].text, 200)
        stage.console.print()
        stage.console.print(Text.assemble((f"helper: {question}", "bold"), (by, "dim")))
        said = (watched.run.error or {}).get("message") or watched.run.content or watched.run.status
        stage.console.print(screen.indented(str(said).strip()))
        for each in cited:
            where = " > ".join(each.heading) or each.title or ""
            source = f"[{each.n}] {Path(each.uri).name}{f': {where}' if where else ''}"
            stage.console.print(screen.indented(Text(source, "dim")))
        told.append((watched.run, cited))
    stage.console.print()
    return pipeline.without_sources(told)


def _follow(stage: Stage, crew: ProcessManager, watch: Watch, expected: int) -> float:
    """Show the runs until `expected` have ended, or all there are and one badly; gives when the first was seen at work."""
    first: float | None = None
    with progress(stage.console) as shown:
        while True:
            runs, now = watch.now(), watch.look.now()
            shown.show(runs, now)
            if first is None and any(watched.run.started_at for watched in runs):
                first = time.monotonic()
            if _is_over([watched.run.status for watched in runs], expected):
                return first or time.monotonic()
            crew.check()
            time.sleep(_LOOK_EVERY_S)


def _is_over(statuses: Sequence[RunStatus], expected: int) -> bool:
    """A chord whose header failed has no body to wait for."""
    if not statuses or not all(status.is_terminal for status in statuses):
        return False
    return len(statuses) == expected or any(status is not RunStatus.DONE for status in statuses)


def _say_what(console: Console, chosen: Chosen, picked: Picked) -> None:
    console.print(Text.assemble(("model      ", "dim"), (chosen.name, "bold"), f": {chosen.said}"))
    names = ", ".join(doc.name for doc in picked.documents)
    console.print(Text.assemble(("documents  ", "dim"), f"{picked.source}: {names}"))
    if picked.left_out:
        console.print(f"           left out: {picked.left_out} more file(s)", style="dim")
    if cut := [doc for doc in picked.documents if doc.cut_chars]:
        whole = sum(len(doc.text) + doc.cut_chars for doc in picked.documents)
        lost = sum(doc.cut_chars for doc in cut)
        said = f"cut to {chosen.max_chars:,} characters each to fit the model: {len(cut)} document(s), {lost:,} of {whole:,} characters"
        console.print(f"           {said}", style="dim")


def _show_answers(stage: Stage, written: Sequence[Watched]) -> None:
    by = stage.chosen.byline
    for watched in written:
        title = Text.assemble((f"{watched.run.agent} {watched.name}".rstrip(), "bold"), (by, "dim"))
        stage.console.print()
        stage.console.print(title)
        stage.console.print(screen.indented(str(watched.run.content or watched.run.status).strip()))
    stage.console.print()


def _show_check(stage: Stage, tellings: Sequence[Told], wrong: list[str]) -> None:
    steps = [step for telling in tellings for step in telling.steps]
    again = sum(step.attempt - 1 for step in steps)
    stage.console.print(Rule("Check, from the rows", align="left"))
    if not wrong:
        repeated = f", {again} attempt(s) repeated after a worker was lost" if again else ""
        counted = f"{len(tellings)} runs done, {len(steps)} steps recorded once each, the chord's body ran once{repeated}."
        stage.console.print(screen.indented(Text.assemble(("All as it should be: ", "green"), counted)))
    for sentence in wrong:
        stage.console.print(screen.indented(Text.assemble(("wrong: ", "red"), sentence)))


def _say_where_next(stage: Stage, tellings: Sequence[Told]) -> None:
    console, state_dir = stage.console, stage.servers.state_dir
    console.print()
    console.print(Rule("Where to look next", align="left"))
    if state_dir:
        said = f"The servers end now; the runs stay in {state_dir}. Start the servers again, then look from another shell:"
        console.print(screen.indented(said))
    shown = [f"runs show {telling.run.id}" for telling in tellings if telling.run.agent == "researcher"]
    searched = f'search {stage.session} "{stage.picked.questions[0]}"'
    listed = f"runs ls --session {stage.session}"
    for words in [*(["up"] if state_dir else []), searched, listed, *shown, "doctor"]:
        console.print(f"  {_as_typed(words)}", soft_wrap=True, markup=False)


def _as_typed(words: str) -> str:
    """A command that works in another shell in this folder, copied as it stands."""
    chosen = os.environ.get("AGNO_STATE_DIR")
    state_dir = f"AGNO_STATE_DIR={shlex.quote(chosen)} " if chosen else ""
    if not Path("run").exists() or not Path("agno_workers").is_dir():
        return f"{state_dir}agno-workers {words}"
    return f"{state_dir}./run {words}" if words == "up" else f"{state_dir}./run agno-workers {words}"
