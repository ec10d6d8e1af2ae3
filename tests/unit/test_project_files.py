"""Files beside the code (Procfile, compose, config, pages) agree with the code."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import typer
import yaml

import agno_workers
from agno_workers.broker.app import AgnoCelery, create
from agno_workers.broker.names import RUN, STEP_TASKS
from agno_workers.broker.states import STATES
from agno_workers.cli.main import COMMANDS
from agno_workers.cli.metrics import GAUGES, QUEUE, WORKERS
from agno_workers.cli.metrics import app as metrics_app
from agno_workers.cli.programs import BACKGROUND_THREADS, THREADS, workers
from agno_workers.core.request import OPTIONS
from agno_workers.core.run import StepStatus
from agno_workers.core.session import SessionStatus
from agno_workers.engine.run_turn import run_turn
from agno_workers.settings import Settings, load
from benchmarks import readme

ROOT = Path(__file__).parents[2]
OTHER_VARIABLES = {"AGNO_CONFIG", "AGNO_CRASH_AT", "AGNO_LOCAL_API_KEY", "AGNO_STATE_DIR"}
"""Variables in pages that are not settings."""
PAGES = ["README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCES = re.compile(r"(?:<!-- not run: (.*?) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
PARSERS: dict[str, Callable[[str], object]] = {
    "ini": lambda text: configparser.ConfigParser(strict=False, interpolation=None).read_string(
        f"[-]\n{text}"
    ),
    "json": json.loads,
    "python": lambda text: compile(text, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
    "sh": lambda text: subprocess.run(["sh", "-n"], input=text, text=True, check=True, capture_output=True),
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
"""The languages of fences, with what reads them. Python, SQL and `agno-workers` in sh are executed by test_pages.py as well."""
OTHER_PROGRAMS = {
    "run": "checked against its own help; each is tested in tests/acceptance/test_run_script.py",
    "celery": "a worker or Flower, which tests start by other means",
    "cp": "copies a file",
    "createdb": "a server of the reader",
    "curl": "a server of the reader",
    "docker": "tests have no Docker; compose and Dockerfile are checked above",
    "export": "sets a variable of the reader's shell",
    "journalctl": "a machine of the reader",
    "set": "sets variables of the reader's shell",
    "createuser": "a server of the reader",
    "git": "the reader's clone",
    "kill": "a process of the reader",
    "kubectl": "a cluster of the reader",
    "pg_basebackup": "a server of the reader",
    "pg_dump": "the same as pg_restore",
    "pg_restore": "test_pages.py has no client programs of Postgres",
    "pip": "tests/acceptance install the wheel",
    "eval": "test_pages.py sets the addresses of its servers",
    "pkill": "test_pages.py kills its own worker instead",
    "prometheus": "a server of the reader",
    "psql": "a server of the reader",
    "pytest": "the reader's tests; the page's Python is executed",
    "python": "a file of the reader",
    "python3": "makes the reader's virtual environment",
    "sudo": "a machine of the reader",
    "systemctl": "a machine of the reader",
    "uvicorn": "a server of the reader; tests/acceptance start those of the examples",
    "valkey-server": "the tests' own server has the same settings",
}
"""Programs in sh fences that test_pages.py does not execute, and why."""


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture
def procfile() -> dict[str, list[str]]:
    lines = (line.partition(":") for line in read("Procfile").splitlines() if line.strip())
    return {name: shlex.split(command) for name, _, command in lines}


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return loaded


@pytest.fixture
def celery_app() -> AgnoCelery:
    return create(
        "redis://nobody",
        queues={"agents": "agents", "tools": "tools", "knowledge": "knowledge", "background": "background"},
        broker_timeout_s=1.0,
    )


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("AGNO_")]:
        monkeypatch.delenv(name)
    return monkeypatch


# Processes.


def test_the_workers_serve_every_queue_of_the_settings(procfile: dict[str, list[str]]) -> None:
    served = [command[command.index("-Q") + 1] for command in procfile.values() if "worker" in command]
    assert sorted(served) == sorted(Settings().queues.model_dump().values())


def test_up_starts_its_workers_as_the_procfile_does(procfile: dict[str, list[str]]) -> None:
    started = workers(Settings(), agents=THREADS, tools=THREADS, background=BACKGROUND_THREADS, knowledge=4)
    names = ("worker-agents", "worker-tools", "worker-background", "worker-knowledge")
    for program, name in zip(started, names, strict=True):
        for option in procfile[name][1:]:
            assert option in program.arguments or option.endswith("@%h"), f"{name}: {option}"


def test_compose_runs_what_the_procfile_runs(procfile: dict[str, list[str]], compose: dict[str, Any]) -> None:
    for name, command in procfile.items():
        assert shlex.split(compose["services"][name]["command"]) == command


def test_kubernetes_runs_what_the_procfile_runs(procfile: dict[str, list[str]]) -> None:
    deployments = yaml.safe_load_all(read("config/k8s/workers.yaml"))
    for deployment, name in zip(
        deployments, ("worker-agents", "worker-tools", "worker-background", "worker-knowledge"), strict=True
    ):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (command,) = container["args"]
        words = shlex.split(command.removeprefix("exec ").replace("-P prefork -c 2", "-P prefork"))
        assert (deployment["metadata"]["name"], words) == (name, procfile[name])


@pytest.mark.parametrize("overridden", [False, True])
def test_compose_is_valid(compose: dict[str, Any], overridden: bool) -> None:
    if overridden:
        compose = _merged(compose, yaml.safe_load(read("config/compose.override.yml")))
    schema = json.loads(read("tests/fixtures/compose-spec/compose-spec.json"))
    jsonschema.validate(compose, schema)
    for name, service in compose["services"].items():
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        assert set(service.get("networks", [])) <= set(compose["networks"]), name
        for volume in service.get("volumes", []):
            assert volume.startswith("./") or volume.partition(":")[0] in compose["volumes"], name


def test_compose_asks_for_what_the_example_of_an_environment_has() -> None:
    asked = set(re.findall(r"\$\{(\w+)", read("docker-compose.yml")))
    assert asked - {"AGNO_CONFIG"} == set(_env_example())


def test_compose_gives_keys_only_to_those_who_need_them(compose: dict[str, Any]) -> None:
    having = {
        name
        for name, service in compose["services"].items()
        if "OPENAI_API_KEY" in service.get("environment", {})
    }
    assert having == {"worker-agents", "worker-background", "worker-knowledge"}
    assert not any("env_file" in service for service in compose["services"].values())


def test_compose_limits_the_memory_of_every_service(compose: dict[str, Any]) -> None:
    assert all(service.get("mem_limit") for service in compose["services"].values())


@pytest.mark.parametrize("path", ["Dockerfile", "agno_workers/local/project/Dockerfile"])
def test_the_image_can_read_documents(path: str) -> None:
    installed = re.search(r"\[([\w,]+)\]", read(path))
    assert installed
    assert "knowledge" in installed[1].split(",")


def test_compose_keeps_the_queues_and_gives_workers_time(
    compose: dict[str, Any], celery_app: AgnoCelery
) -> None:
    valkey = " ".join(compose["services"]["valkey"]["command"].split())
    for setting in ("--maxmemory-policy noeviction", "--appendonly yes", "--appendfsync everysec"):
        assert setting in valkey
    for name in ("worker-agents", "worker-tools", "worker-background", "worker-knowledge"):
        grace_s = int(compose["services"][name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > Settings().worker.shutdown_grace_s + 1


def test_compose_opens_no_port_to_the_outside(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert compose["networks"]["data"]["internal"] is True
    assert all(compose["services"][name]["networks"] == ["data"] for name in ("postgres", "valkey"))


# Metrics.


def test_the_page_lists_the_metrics_with_their_labels() -> None:
    rows = re.findall(r"^\| `(agno_\w+)` \|([^|]*)\|", read("docs/howto-deploy.md"), re.MULTILINE)
    listed = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    gauges = {gauge.name: gauge.labels for gauge in (*GAUGES.values(), QUEUE, WORKERS)}
    assert listed == gauges | {"agno_up": (), "agno_redis_up": (), "agno_quarantined_messages_total": ()}


def test_the_alerts_use_metrics_that_there_are() -> None:
    (group,) = yaml.safe_load(read("config/alerts.yml"))["groups"]
    used = {name for rule in group["rules"] for name in re.findall(r"agno_\w+", rule["expr"])}
    exist = {gauge.name for gauge in (*GAUGES.values(), QUEUE, WORKERS)}
    assert used <= exist | {"agno_up", "agno_redis_up", "agno_quarantined_messages_total"}
    assert yaml.safe_load(read("config/prometheus.yml"))["rule_files"] == ["alerts.yml"]


def test_prometheus_asks_where_the_metrics_are() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(read("config/prometheus.yml"))["scrape_configs"]}
    (port,) = [
        option.default for option in typer.main.get_command(metrics_app).params if option.name == "port"
    ]
    assert jobs["agno-workers"]["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]


# Configuration.


@pytest.mark.parametrize(
    "path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "config").glob("*.toml"))
)
def test_a_settings_file_loads(path: str, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("AGNO_CONFIG", str(ROOT / path))
    load()


def test_the_example_of_an_environment_loads(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.chdir(ROOT)
    for name, value in _env_example().items():
        clean_environment.setenv(name, value)
    assert load().signing.keys == ()


def test_the_versions_agree() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert agno_workers.__version__ == version
    assert f"## [{version}]" in read("CHANGELOG.md")


def test_no_file_names_a_package_index_or_a_folder_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    wrong = re.compile(
        r"--(?:extra-)?index-url|--find-[l]inks|_auth[T]oken"
        r"|https?://[^\s/\"']*(?:pypi|npm|registry|mirror|artifactory|nexus|proxy)[^\s\"']*"
        r"|(?<![\w.$}])/(?:work|root|home|Users)/\w+"
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{name}: {match.group()}" for match in wrong.finditer(text)]
    assert not found


# Pages.


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page: str) -> None:
    code = _code(read(page))
    for line in re.findall(r"agno-workers ([a-z][^\n]*)", code):
        words = [word.rstrip(',;)."') for word in line.partition("#")[0].split()]
        assert words[0] in COMMANDS, line
        command: Any = typer.main.get_command(importlib.import_module(f"agno_workers.cli.{words[0]}").app)
        if hasattr(command, "commands"):
            assert {words[1], *re.findall(r"\| ([a-z]+)", line)} <= set(command.commands), line
            command = command.commands[words[1]]
        options = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= options, line
    for word in re.findall(r"\./run ([\w-]+)", code):
        assert word in {"agno-workers", "python"} or f"# ./run {word}" in read("run"), f"./run {word}"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_link_of_a_page_exists(page: str) -> None:
    text = read(page)
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"
    for path in re.findall(r"`((?:agno_workers|tests|config|docs|tasks|examples)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_of_a_page_exists(page: str) -> None:
    settings = _script("settings_table")
    known = {settings.variable(key) for key in settings.KEYS} | OTHER_VARIABLES
    assert set(re.findall(r"\bAGNO_[A-Z_]+\b", _code(read(page)))) <= known
    keys = re.findall(rf"`((?:{'|'.join(settings.SECTIONS)})\.[a-z_]+(?:_s|_bytes|_attempts))`", read(page))
    assert set(keys) <= set(settings.KEYS)


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_of_a_page_can_be_read(page: str) -> None:
    for reason, language, code in FENCES.findall(read(page)):
        assert language in {"", "sql", "text", *PARSERS}, f"no test reads {language}"
        if not reason and language in PARSERS:
            PARSERS[language](code)
        if language == "sh":
            lines = [line for line in code.replace("\\\n", " ").splitlines() if line and line[0] not in "# "]
            programs = {Path(re.sub(r"^([A-Z_]+=\S+ )+", "", line).split()[0]).name for line in lines}
            assert programs <= {"agno-workers", *OTHER_PROGRAMS}, page


def test_readme_fits_three_screens_and_begins_with_pip() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= 140
    assert any(line.startswith('pip install "agno-workers[') for line in lines[:10])


def test_reference_pages_are_the_code() -> None:
    reference = _script("reference")
    described = [name.partition("=")[0] for names in reference.pages().values() for name in names]
    missing = set(reference.PUBLIC) - set(described)
    assert not missing, (
        "add each to an `<!-- api: … -->` of a page in docs/, then run: ./run python docs/reference.py"
    )
    for page in reference.pages():
        text = page.read_text(encoding="utf-8")
        assert reference.written(text) == text, f"{page.name}: run ./run python docs/reference.py"


def test_every_public_name_has_meaning_fields_and_an_example() -> None:
    reference = _script("reference")
    for page, names in reference.pages().items():
        examples = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
        for name in names:
            assert re.search(rf"\b{re.escape(name.partition('=')[0].partition('()')[0])}\b", examples), (
                f"{page.name}: no example of {name}"
            )
    assert reference.without_meaning() == []


def test_headings_of_messages_are_messages_of_the_code() -> None:
    headings = re.findall(r"^### `(.*)`$", read("docs/troubleshooting.md"), re.MULTILINE)
    sentences = [
        each
        for path in (ROOT / "agno_workers").rglob("*.py")
        for each in _sentences(ast.parse(path.read_text("utf-8")))
    ]
    assert len(headings) > 20
    assert [each for each in headings if not any(_quotes(each, sentence) for sentence in sentences)] == []


def test_page_has_each_sentence_that_keeps_a_worker_from_starting() -> None:
    headings = re.findall(r"^### `(.*)`$", read("docs/troubleshooting.md"), re.MULTILINE)
    for place in ("broker/checks.py", "database/checks.py", "database/identity.py", "wiring.py"):
        for each in ast.walk(ast.parse(read(f"agno_workers/{place}"))):
            if isinstance(each, ast.FunctionDef) and re.search(
                "problems?$|_refusal$|^(required|claim|_copy|_rights|_version)$", each.name
            ):
                for sentence in _sentences(each):
                    is_sentence = (
                        len(sentence) > 30
                        and ":" in sentence
                        and not sentence.startswith(("Return ", "SELECT ", "Yield ", "Store ", "…: "))
                    )
                    assert not is_sentence or any(_quotes(heading, sentence) for heading in headings), (
                        sentence
                    )


def _sentences(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of code, with … for each value in them."""
    pieces = {part for each in ast.walk(tree) if isinstance(each, ast.JoinedStr) for part in each.values}
    for each in ast.walk(tree):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each not in pieces:
            yield each.value
        elif isinstance(each, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in each.values)


def _quotes(heading: str, sentence: str) -> bool:
    """Return True if the sentence has the pieces of the heading, in order."""
    return re.search(".*?".join(map(re.escape, heading.split("…"))), sentence, re.DOTALL) is not None


def test_the_table_of_settings_is_the_settings() -> None:
    page = read("docs/reference-settings.md")
    assert _script("settings_table").written(page) == page, "run: ./run python docs/settings_table.py"


def test_the_figures_of_the_reliability_page_are_those_that_were_measured() -> None:
    page = read("docs/reliability.md")
    assert _script("reliability_figures").written(page) == page, (
        "run: ./run python docs/reliability_figures.py"
    )


@pytest.mark.parametrize("path", readme.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_what_was_measured(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert readme.BLOCK.search(page)
    assert readme.written(page, readme.RESULTS) == page, "run: ./run python -m benchmarks readme"


def test_the_celery_settings_of_the_page_are_the_apps(celery_app: AgnoCelery) -> None:
    section = _section(read("docs/reference-settings.md"), "What we set in Celery, and why")
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE)
    assert len(rows) > 5
    for name, value in rows:
        assert repr(celery_app.conf[name]).replace("'", '"') == value, name


def test_messages_page_names_tasks_arguments_statuses_and_events() -> None:
    page = read("docs/reference-messages.md")
    assert set(re.findall(r"^\| `(agno\.\w+)`", _section(page, "Tasks"), re.MULTILINE)) == {RUN, *STEP_TASKS}
    assert _first_cells(_section(page, "`agno.run`")) == {"agent", "input", "options", *OPTIONS}
    statuses = _first_cells(_section(page, "Statuses"))
    assert statuses == {*map(str, STATES), *map(str, StepStatus), *map(str, SessionStatus)}
    for status, state in STATES.items():
        assert f"| `{status}` | {state} |" in page
    happened = read("agno_workers/runs/functions/events.sql")
    assert _first_cells(_section(page, "Events")) == set(
        re.findall(r"'((?:Run|Model|Tool|Compaction|Message|Report)\w*)'", happened)
    )


def test_messages_page_has_the_parameters_of_submit() -> None:
    functions = read("agno_workers/runs/functions/submit.sql")
    (signature,) = re.findall(r"FUNCTION agno\.submit\(\s*(.*?)\n\) RETURNS", functions, re.DOTALL)
    parameters = {part.split()[0] for part in signature.split(",")}
    assert _first_cells(_section(read("docs/reference-messages.md"), "SQL")) == parameters


def test_messages_page_has_the_arguments_of_steps() -> None:
    named = list(inspect.signature(run_turn).parameters)[1:]
    assert ", ".join(f"`{name}`" for name in named) in read("docs/reference-messages.md")


def _merged(below: Any, above: Any) -> Any:
    """Lay one document over another, as Compose does."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {name: _merged(below.get(name), value) for name, value in above.items()}
    return above if below is None or not isinstance(above, list) else below + above


def _env_example() -> dict[str, str]:
    lines = (line for line in read("config/env.example").splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _code(page: str) -> str:
    """Return the text in fences and back-ticks."""
    found = re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", page, re.DOTALL)
    return "\n".join(fence or inline for fence, inline in found)


def _section(page: str, heading: str) -> str:
    return re.split(r"^#+ ", page.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def _first_cells(section: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def _anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
