"""`agno-workers demo`: start everything here, ingest and ask documents, run agents over them, and check the rows."""

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

from agno_workers import local, wiring
from agno_workers import settings as settings_module
from agno_workers.cli import screen
from agno_workers.cli.arrivals import Arrivals, counted, rate
from agno_workers.cli.connection import are_given
from agno_workers.cli.demo_model import Chosen, choose, serving
from agno_workers.cli.processes import ProcessManager, StoppedBySignal, stopping_by_signal
from agno_workers.cli.programs import THREADS, workers
from agno_workers.cli.progress import progress
from agno_workers.cli.servers import Servers, prepare, running
from agno_workers.cli.timeline import show_timeline
from agno_workers.core.run import RunStatus
from agno_workers.errors import AgnoError, ModelRejected
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.local.demo import pipeline
from agno_workers.local.demo.documents import Picked, pick
from agno_workers.local.demo.pipeline import Recorded, Watch, Watched
from agno_workers.sdk.handles import RunHandle
from agno_workers.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_CHECK_EVERY_S = 0.1
_LEASE_S = 6.0  # short, so that a killed worker is replaced soon


@app.command()
def demo(
    path: Path | None = typer.Argument(
        None, help="A file or folder of text or Markdown. Default: this project's documents."
    ),
    model: str = typer.Option(
        "", "--model", help="provider:model. Default: a provider whose key is set, else a small local model."
    ),
    documents: int = typer.Option(4, "--documents", min=1, max=50, help="The number of documents to read."),
) -> None:
    """Ingest documents and ask them, run a group of agents over them, then eight tools in parallel.

    Starts its own Postgres and Valkey (or uses AGNO_DATABASE_URL and AGNO_BROKER_URL, or the servers of a running `up`) and real
    Celery workers, and stops them at its end. Its servers keep their data in AGNO_STATE_DIR, default ~/.local/state/agno-workers. You may kill a worker while it runs: the demo still succeeds, and checks that it did.
    """
    started = time.monotonic()
    settings = settings_module.load()
    chosen = choose(model, settings)
    console = screen.console()
    with stopping_by_signal() as hurry:
        try:
            with _stage(console, settings, chosen, path, documents) as stage:
                programs = [
                    replace(program, stop_timeout_s=5.0)
                    for program in workers(stage.settings, agents=THREADS, tools=THREADS, knowledge=2)
                ]
                processes = ProcessManager(programs, lambda _program, _line: None, stage.print)
                try:
                    processes.start()
                    problems = _play(stage, processes, started)
                finally:
                    stage.leave()
                    hurry.set()  # nobody waits for what is left
                    processes.stop(hurry)
        except StoppedBySignal as stopped:
            console.print("Stopped early; unfinished runs are cancelled.", style="dim")
            raise typer.Exit(128 + stopped.signum) from None
    if problems:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Stage:
    """The servers, the model and the documents of one demo."""

    console: Console
    settings: Settings
    servers: Servers
    chosen: Chosen
    picked: Picked
    folder: Path
    """Copies of the documents."""
    session: str

    def print(self, sentence: str) -> None:
        self.console.print(screen.line((f"  {sentence}", "dim")))

    def watch(self, skip: frozenset[str] = frozenset()) -> Watch:
        services = wiring.services()
        return Watch(services.database.queries, services.streams, self.session, skip)

    def clean(self) -> None:
        """Remove the remains of earlier demos from our own servers, where no other demo can be running."""
        if not self.servers.state_dir or self.servers.shared:
            return
        if cancelled := pipeline.cancel_unfinished(wiring.services(), "demo-"):
            self.print(f"cancelled the runs of a killed demo: {cancelled}")
        pipeline.remove_earlier(wiring.services(), "demo-")

    def leave(self) -> None:
        """Cancel unfinished runs: no worker will execute them."""
        try:
            pipeline.cancel_unfinished(wiring.services(), self.session)
        except AgnoError as error:
            self.print(f"unfinished runs are not cancelled: {error}")
        wiring.forget()


@contextmanager
def _stage(
    console: Console, settings: Settings, chosen: Chosen, path: Path | None, documents: int
) -> Iterator[Stage]:
    """Start servers, schema and model, copy documents, and set the environment for this process and the workers."""
    session = f"demo-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="agno-demo-") as folder:
        picked = pick(path, Path(folder), most=documents, max_chars=chosen.max_chars)
        _show_plan(console, settings, chosen, picked)
        with running(settings, share=True) as servers, serving(chosen) as model_environment:
            prepare(servers)
            os.environ.update(model_environment)
            os.environ.update(_environment(settings, chosen, session, folder))
            stage = Stage(console, settings_module.load(), servers, chosen, picked, Path(folder), session)
            stage.clean()
            yield stage


def _environment(settings: Settings, chosen: Chosen, session: str, folder: str) -> dict[str, str]:
    """Return settings with the demo's own queues: other workers lack its agents."""
    imports = ["agno_workers.local.demo.agents"]
    if chosen.name.startswith("scripted:") and settings.imports:
        imports[:0] = settings.imports
    lease_s = min(settings.runs.lease_s, _LEASE_S)
    return {
        "AGNO_IMPORTS": ",".join(imports),
        "AGNO_QUEUES__AGENTS": f"{session}-agents",
        "AGNO_QUEUES__TOOLS": f"{session}-tools",
        "AGNO_QUEUES__KNOWLEDGE": f"{session}-knowledge",
        "AGNO_QUEUES__BACKGROUND": f"{session}-background",
        "AGNO_RUNS__LEASE_S": str(lease_s),
        "AGNO_RUNS__RENEW_EVERY_S": str(min(settings.runs.renew_every_s, lease_s / 3)),
        "DEMO_MODEL": chosen.name,
        "DEMO_FOLDER": folder,
        "DEMO_KNOWLEDGE": session,
        "DEMO_EMBEDDER": _embedder(),
    }


def _embedder() -> str:
    """Return the local embedder if it is installed, else one that compares words."""
    try:
        resolve("local")
    except ModelRejected:
        return "hash:384"
    return "local"


def _play(stage: Stage, processes: ProcessManager, started: float) -> list[str]:
    """Run the three parts, the timeline and the check. Return a sentence for each problem."""
    console, picked = stage.console, stage.picked
    many = len(picked.documents)
    console.print()
    console.print(
        Rule(
            f"1  knowledge: ingest {many} document(s), ask {len(picked.questions)} question(s)", align="left"
        )
    )
    _ingest(stage, processes)
    pipeline.submit_questions(picked.questions, stage.session)
    _follow(stage, processes, stage.watch(), len(picked.questions))
    asked = stage.watch().now()
    sourceless = _show_helpers(stage, asked)

    console.print(
        Rule(f"2  chord: {many} analyst run(s) in parallel, then the editor over their texts", align="left")
    )
    before = frozenset(watched.run.id for watched in asked)
    pipeline.submit_pipeline(picked.documents, stage.session)
    _follow(stage, processes, stage.watch(before), many + 1)
    written = stage.watch(before).now()
    _show_answers(stage, written)

    console.print(Rule("3  researcher: eight tools in parallel", align="left"))
    console.print(
        screen.indented(
            Text(
                "A script chooses the eight calls, not a model. The tools are real: they read the files.",
                "dim",
            )
        )
    )
    pipeline.submit_research(picked.documents, stage.session)
    _follow(stage, processes, stage.watch(before | {watched.run.id for watched in written}), 1)

    rows = pipeline.recorded(wiring.services().database.queries, stage.session)
    show_timeline(console, rows)
    problems = [*pipeline.problems(rows, picked.documents), *sourceless]
    _show_check(stage, rows, problems)
    took_s = time.monotonic() - started
    console.print(f"  {took_s:.0f} s in all", style="dim")
    _show_next(stage, rows)
    return problems


def _ingest(stage: Stage, processes: ProcessManager) -> None:
    """Ingest the documents twice: unchanged ones are cheap."""
    for again in (False, True):
        job = pipeline.submit_ingestion(stage.folder, stage.session, os.environ["DEMO_EMBEDDER"])
        arrivals = Arrivals()
        with stage.console.status("") as shown:
            while not RunStatus((progress := job.progress()).status).is_terminal:
                arrivals.look(progress, time.monotonic())
                shown.update(Text(f"{counted(progress)} {rate(arrivals, progress)}", "dim"))
                processes.check()
                time.sleep(_CHECK_EVERY_S)
        took = screen.took(job.run.created_at, progress.ended_at)
        line = f"{'again: ' if again else ''}{counted(progress)}, in {took}"
        stage.console.print(screen.indented(Text(line)))
        for failure in job.failures() if not again else []:
            stage.print(f"failed: {failure.uri}: {failure.message}")
        if job.run.error:
            raise AgnoError.from_json(job.run.error)


def _show_helpers(stage: Stage, asked: Sequence[Watched]) -> list[str]:
    """Print questions, answers and sources. Return a sentence for each answer without a source."""
    by = stage.chosen.byline if stage.chosen.calls_tools else "  (scripted; the search is real)"
    here, shown = wiring.services(), []
    for watched in asked:
        handle = RunHandle(watched.run.id, here.database, here.streams)
        cited = [each for each in handle.references if each.cited]
        question = screen.one_line(handle.messages[0].text, 200)
        stage.console.print()
        stage.console.print(screen.line((f"helper: {question}", "bold"), (by, "dim")))
        answer = (watched.run.error or {}).get("message") or watched.run.content or watched.run.status
        stage.console.print(screen.indented(str(answer).strip()))
        for each in cited:
            where = " > ".join(each.heading) or each.title or ""
            source = f"[{each.n}] {Path(each.uri).name}{f': {where}' if where else ''}"
            stage.console.print(screen.indented(screen.line((source, "dim"))))
        shown.append((watched.run, cited))
    stage.console.print()
    return pipeline.without_sources(shown)


def _follow(stage: Stage, processes: ProcessManager, watch: Watch, expected: int) -> None:
    """Show the runs until `expected` have ended, or all have ended and one of them failed."""
    with progress(stage.console) as shown:
        while True:
            runs, now = watch.now(), watch.queries.now()
            shown.show(runs, now)
            if _is_over([watched.run.status for watched in runs], expected):
                return
            processes.check()
            time.sleep(_CHECK_EVERY_S)


def _is_over(statuses: Sequence[RunStatus], expected: int) -> bool:
    """A chord whose header failed never starts its body."""
    if not statuses or not all(status.is_terminal for status in statuses):
        return False
    return len(statuses) == expected or any(status is not RunStatus.DONE for status in statuses)


def _show_plan(console: Console, settings: Settings, chosen: Chosen, picked: Picked) -> None:
    own = "start its own Postgres and Valkey, and"
    if are_given(settings):
        own = "use your Postgres and Redis, and start"
    elif local.running():
        own = "use the Postgres and Valkey that `agno-workers up` runs, and start"
    many = len(picked.documents)
    steps = [
        f"{own} three Celery workers, until it ends",
        f"ingest {many} document(s) into a knowledge base, and ask {len(picked.questions)} question(s)",
        f"run {many} analyst(s) in parallel, then an editor over their texts",
        "run a researcher that calls eight tools in parallel",
        "check in Postgres that each step was recorded exactly once",
    ]
    console.print("This demo takes about one minute, two on a busy machine. It will:")
    for number, step in enumerate(steps, 1):
        console.print(f"  {number}. {step}")
    console.print()
    console.print(screen.line(("model      ", "dim"), (chosen.name, "bold"), f": {chosen.note}"))
    names = ", ".join(doc.name for doc in picked.documents)
    console.print(screen.line(("documents  ", "dim"), f"{picked.source}: {names}"))
    if picked.left_out:
        console.print(f"           not read: {picked.left_out} more file(s)", style="dim")
    if cut := [doc for doc in picked.documents if doc.cut_chars]:
        whole = sum(len(doc.text) + doc.cut_chars for doc in picked.documents)
        read = whole - sum(doc.cut_chars for doc in cut)
        note = f"the model reads the first {chosen.max_chars:,} characters of each ({read:,} of {whole:,})"
        console.print(f"           {note}", style="dim")


def _show_answers(stage: Stage, written: Sequence[Watched]) -> None:
    by = stage.chosen.byline
    for watched in written:
        title = screen.line((f"{watched.run.agent} {watched.name}".rstrip(), "bold"), (by, "dim"))
        stage.console.print()
        stage.console.print(title)
        stage.console.print(screen.indented(str(watched.run.content or watched.run.status).strip()))
    stage.console.print()


def _show_check(stage: Stage, rows: Sequence[Recorded], problems: list[str]) -> None:
    steps = [step for each in rows for step in each.steps]
    again = sum(step.attempt - 1 for step in steps)
    stage.console.print(Rule("Check, from the database", align="left"))
    if not problems:
        repeated = f", {again} attempt(s) repeated after a worker was lost" if again else ""
        total = f"{len(rows)} runs done, {len(steps)} steps recorded once each, the chord's body ran once{repeated}."
        stage.console.print(screen.indented(Text.assemble(("Everything is correct: ", "green"), total)))
    for sentence in problems:
        stage.console.print(screen.indented(Text.assemble(("problem: ", "red"), sentence)))


def _show_next(stage: Stage, rows: Sequence[Recorded]) -> None:
    console = stage.console
    state_dir = None if stage.servers.shared else stage.servers.state_dir
    console.print()
    console.print(Rule("Where to look next", align="left"))
    if state_dir:
        hint = f"The servers stop now; the runs stay in {state_dir}. Start the servers again, and use another shell:"
        console.print(screen.indented(hint))
    shown = [f"runs show {each.run.id}" for each in rows if each.run.agent == "researcher"]
    searched = f'search {stage.session} "{stage.picked.questions[0]}"'
    listed = f"runs ls --session {stage.session}"
    for words in [*(["up"] if state_dir else []), searched, listed, *shown, "doctor"]:
        console.print(f"  {_as_typed(words)}", soft_wrap=True)


def _as_typed(words: str) -> str:
    """Return the command as it works in another shell in this folder."""
    chosen = os.environ.get("AGNO_STATE_DIR")
    state_dir = f"AGNO_STATE_DIR={shlex.quote(chosen)} " if chosen else ""
    if not Path("run").exists() or not Path("agno_workers").is_dir():
        return f"{state_dir}agno-workers {words}"
    return f"{state_dir}./run {words}" if words == "up" else f"{state_dir}./run agno-workers {words}"
