"""The settings of a process, with the servers of a running `agno-workers up` where nothing else is set."""

from __future__ import annotations

from pydantic import SecretStr

from agno_workers import local
from agno_workers import settings as settings_module
from agno_workers.settings import Settings


def load_settings() -> Settings:
    """Return the settings of this process. If they name neither Postgres nor Redis, and `local_servers` is on, add the addresses of
    the servers of a running `agno-workers up`. Raises SettingsError.
    """
    given = settings_module.load()
    if not given.may_use_local_servers:
        return given
    if (found := local.running()) is None:
        return given
    return given.changed(
        database={"url": SecretStr(found.database_url)}, broker={"url": SecretStr(found.broker_url)}
    )
