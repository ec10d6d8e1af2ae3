"""`agno-workers metrics`: metrics for Prometheus. Each scrape reads Postgres and Redis; nothing is kept in between.

Labels are names of agents, queues and knowledge bases, at most MOST of each; no label is an id or free text.
"""

from __future__ import annotations

import operator
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import redis
import typer
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agno_workers.broker import queues
from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import state
from agno_workers.core.words import printable
from agno_workers.errors import AgnoError, InvalidInput
from agno_workers.runs.metrics import Counted, counted
from agno_workers.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MOST = 50
"""The most values of the first label of one metric; the smallest others are summed as OTHERS."""
OTHERS = "(others)"
_RECENT_S = 3600.0
_STATES = ("alive", "silent", "lost", "stopped")


@dataclass(frozen=True)
class Gauge:
    """One metric; MOST bounds the values of its first label."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    together: Callable[[float, float], float] = operator.add
    """How two of the OTHERS become one value."""


GAUGES = {
    "open_runs": Gauge("agno_open_runs", "Runs that have not ended; paused runs have the status paused.", ("agent", "status")),
    "recent_runs": Gauge("agno_recent_runs", "Runs submitted within the last hour, by their present status.", ("agent", "status")),
    "failed_runs": Gauge("agno_failed_runs", "Runs that failed and were not retried.", ("agent",)),
    "open_steps": Gauge("agno_open_steps", "Steps that have not ended. timer: not due yet; waiting: for a person, a run, or a place in the queue.", ("queue", "kind", "status")),
    "oldest_ready": Gauge("agno_oldest_ready_step_age_seconds", "Age of the oldest step that was sent and not started.", ("queue",), max),
    "expired_leases": Gauge("agno_expired_leases", "Running steps whose lease has expired; the keeper sends them again."),
    "dead_calls": Gauge("agno_dead_calls", "Tool calls without a result (dead), or with an unknown outcome (unknown).", ("status",)),
    "overdue": Gauge("agno_overdue_messages", "Messages of the outbox that are due; the keeper sends them."),
    "quarantined": Gauge("agno_quarantine_messages", "Messages in agno.quarantine, which keeps them for 30 days.", ("reason",)),
    "ingestions": Gauge("agno_open_ingestions", "Ingestions that have not ended.", ("knowledge",)),
    "documents": Gauge("agno_open_ingestion_documents", "Documents that open ingestions have found.", ("knowledge",)),
    "settled": Gauge("agno_open_ingestion_settled_documents", "Documents of open ingestions that are ingested, unchanged, duplicate or failed.", ("knowledge",)),
}  # fmt: skip
"""By their names in runs/metrics.sql."""
QUEUE = Gauge("agno_queue_messages", "Messages that wait in Redis.", ("queue",))
WORKERS = Gauge("agno_workers", "Workers of the last day. silent: missed a renewal; lost: its leases expired.", ("state",))  # fmt: skip


@app.command()
def metrics(
    port: int = typer.Option(
        9464, "--port", min=0, max=65535, help="The port to listen on; 0: any free port."
    ),
    host: str = typer.Option(
        "127.0.0.1", "--host", help="The address to listen on; 0.0.0.0: all interfaces."
    ),
    once: bool = typer.Option(False, "--once", help="Print the metrics to stdout and exit."),
) -> None:
    """Serve metrics for Prometheus at /metrics until Ctrl-C. Without Postgres, agno_up is 0."""
    settings = connection.settings()
    connection.required(settings, "database")
    connection.required(settings, "broker")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(settings))
    if once:
        typer.echo(generate_latest(registry), nl=False)
    else:
        _serve(registry, host, port)


def _serve(registry: CollectorRegistry, host: str, port: int) -> None:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port or --host."
        ) from error
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    screen.echo(f"Metrics at http://{host}:{server.server_port}/metrics. Ctrl-C stops the server.")
    ended.wait()
    server.shutdown()
    server.server_close()
    thread.join()


class Collector:
    """Collects metrics at each scrape. Simultaneous scrapes wait for each other, so that they use one connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._trouble: dict[str, str] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; for a server that does not answer, only that it is down."""
        with self._lock:
            found = self._counted()
            lengths = self._lengths(found)
        yield _one("agno_up", "1: Postgres answered in time.", found is not None)
        yield _one("agno_redis_up", "1: Redis answered in time.", lengths is not None)
        if found is not None:
            yield from _families(found, self._settings)
        if lengths is not None:
            yield _family(QUEUE, {(queue,): length for queue, length in lengths.items()})

    def _counted(self) -> Counted | None:
        url = connection.required(self._settings, "database")
        try:
            found = counted(url, timeout_s=connection.PATIENCE_S, recent_s=_RECENT_S)
        except AgnoError as error:
            self._report("Postgres", connection.without_secrets(str(error), url))
            return None
        self._report("Postgres", "")
        return found

    def _lengths(self, found: Counted | None) -> dict[str, int] | None:
        """Return the lengths of the queues of the settings, of open steps and of workers; None if Redis does not answer."""
        given = self._settings
        named = set(given.queues.model_dump().values())
        if found is not None:
            named |= {count.labels[0] for count in found.counts if count.what == "open_steps"}
            named |= {queue for worker in found.workers for queue in worker.queues}
        try:
            with connection.redis_client(given) as client:
                lengths = {
                    queue: queues.length(client, queue, given.broker.key_prefix) for queue in sorted(named)
                }
        except (AgnoError, redis.RedisError, OSError) as error:
            self._report("Redis", connection.without_secrets(str(error), given.broker.url.get_secret_value()))
            return None
        self._report("Redis", "")
        return lengths

    def _report(self, server: str, trouble: str) -> None:
        """Print an error when it begins, not at each scrape."""
        if trouble and trouble != self._trouble.get(server):
            screen.echo(f"agno-workers: {trouble}", err=True)
        self._trouble[server] = trouble


def _families(found: Counted, settings: Settings) -> Iterator[Metric]:
    for what, gauge in GAUGES.items():
        yield _family(gauge, {count.labels: count.value for count in found.counts if count.what == what})
    ever = sum(count.value for count in found.counts if count.what == "quarantined_ever")
    about = "Messages quarantined so far; of a flood only the first ones."
    yield CounterMetricFamily("agno_quarantined_messages", about, value=ever)
    seen = Counter(str(state(worker, settings)) for worker in found.workers)
    yield _family(WORKERS, {(each,): seen[each] for each in _STATES})


def _one(name: str, about: str, value: bool) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _family(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.about, labels=gauge.labels)
    for labels, value in sorted(bounded(values, gauge.together).items()):
        family.add_metric([printable(label, one_line=True) for label in labels], value)
    return family


def bounded(
    values: Mapping[tuple[str, ...], float], together: Callable[[float, float], float] = operator.add
) -> dict[tuple[str, ...], float]:
    """Return the values with at most MOST first labels; the smallest others are combined as OTHERS."""
    sizes: dict[str, float] = {}
    for labels, value in values.items():
        sizes[labels[0] if labels else ""] = sizes.get(labels[0] if labels else "", 0) + value
    kept = sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST]
    combined: dict[tuple[str, ...], float] = {}
    for labels, value in values.items():
        name = labels if not labels or labels[0] in kept else (OTHERS, *labels[1:])
        combined[name] = together(combined[name], value) if name in combined else value
    return combined
