"""Agents, teams, workflows and knowledge bases by name. A worker finds them in the modules of `AGNO_IMPORTS`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from agno_workers.core.agent import MODEL_PREFIX, Agent, model_agent
from agno_workers.core.runnable import Runnable
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput, SettingsError, UnknownAgent, message_of
from agno_workers.knowledge.types import Knowledge, uses_of


def import_from_here() -> None:
    """Let AGNO_IMPORTS name modules of the working folder, as `celery -A` does."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def _set_up_django() -> None:
    """Set up Django where the environment names its settings, so that agents may import models. Raises SettingsError."""
    if not (settings := os.environ.get("DJANGO_SETTINGS_MODULE")):
        return
    try:
        django = importlib.import_module("django")
        if not importlib.import_module("django.apps").apps.ready:
            django.setup()
    except (Exception, SystemExit) as error:
        raise SettingsError(
            f"DJANGO_SETTINGS_MODULE is {settings!r}, and Django can't be set up: {type(error).__name__}: "
            f"{message_of(error).rstrip('.')}. Install Django, correct the settings, or unset the variable.",
            module=settings,
        ) from error


class Registry:
    """The agents, teams and workflows of this process, and the knowledge bases that are defined beside them or that they use."""

    def __init__(self, runnables: Iterable[Runnable] = ()) -> None:
        self._runnables: dict[str, Runnable] = {}
        self._parts: dict[str, Runnable] = {}
        self._knowledge: dict[str, Knowledge] = {}
        for each in runnables:
            self.add(each)

    def add(self, what: Runnable) -> None:
        """Add an agent, a team or a workflow. Raises InvalidInput when a different one has that name."""
        if self._runnables.get(what.name) == what:
            return
        if self._runnables.setdefault(what.name, what) != what:
            both = what.kind, self._runnables[what.name].kind
            kinds = f"{both[0]}s" if both[0] is both[1] else "agents, teams or workflows"
            raise InvalidInput(
                f"two different {kinds} are named {what.name!r}: rename one of them.", agent=what.name
            )
        self._add_knowledge_of(what)
        self._add_parts(what)

    def _add_parts(self, what: Runnable) -> None:
        """Add those that it starts: a worker executes their runs by name. One of a module replaces one of its name.

        Raises InvalidInput when two that are of no module have one name: runs of one would be runs of the other.
        """
        for part in what.parts:
            if self._parts.get(part.name, part) != part:
                raise InvalidInput(
                    f"{what.name!r} starts the {part.kind} {part.name!r}, and another team or agent starts a different one of that name: rename one of them.",
                    agent=part.name,
                )
            if part.name not in self._parts:
                self._parts[part.name] = part
                self._add_knowledge_of(part)
                self._add_parts(part)

    def _add_knowledge_of(self, what: Runnable) -> None:
        if isinstance(what, Agent):
            for use in uses_of(what.knowledge):
                self.add_knowledge(use.knowledge)

    def add_knowledge(self, knowledge: Knowledge) -> None:
        """Add a knowledge base. Raises InvalidInput when a different one has that name."""
        if self._knowledge.setdefault(knowledge.name, knowledge) != knowledge:
            raise InvalidInput(
                f"two different knowledge bases are named {knowledge.name!r}: rename one of them.",
                knowledge=knowledge.name,
            )

    def knowledge(self, name: str) -> Knowledge | None:
        """Return the knowledge base that the code defines, or None; Postgres may still know it."""
        return self._knowledge.get(name)

    def get(self, name: str) -> Runnable:
        """Return an agent, a team or a workflow. Raises UnknownAgent, which lists the known names."""
        known = self._known()
        if name.startswith(MODEL_PREFIX) and name not in known:
            try:
                return model_agent(name.removeprefix(MODEL_PREFIX))
            except InvalidInput as error:
                raise UnknownAgent(f"agent {name!r}: {error}", agent=name) from error
        if name not in known:
            raise UnknownAgent(
                f"agent {name!r} is not imported in this process (known: {', '.join(sorted(known)) or 'none'})."
                f"{did_you_mean(name, known)} Add the module that defines it to AGNO_IMPORTS.",
                agent=name,
            )
        return known[name]

    def _known(self) -> dict[str, Runnable]:
        return self._parts | self._runnables

    def all(self) -> list[Runnable]:
        return [each for _, each in sorted(self._known().items())]

    @classmethod
    def importing(cls, *modules: str) -> Registry:
        """Import these modules, and register each agent, team, workflow and knowledge base that is a global of one of them.

        Raises SettingsError for a module that cannot be imported, with the error of its import; its note is the traceback of
        the module's code.
        """
        _set_up_django()
        registry = cls()
        for name in modules:
            try:
                module = importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit among them
                raise _not_imported(name, error) from error
            for value in vars(module).values():
                if isinstance(value, Runnable):
                    registry.add(value)
                elif isinstance(value, Knowledge):
                    registry.add_knowledge(value)
        return registry


def _not_imported(name: str, error: BaseException) -> SettingsError:
    """Return the error for a module of AGNO_IMPORTS: where it was looked for, or the line at which its import ended."""
    said = f"AGNO_IMPORTS names {name!r}, which cannot be imported"
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return SettingsError(f"{said}: {_not_found(name, error.name)}", module=name)
    if name.startswith("."):
        return SettingsError(f"{said}: write its whole name, as in myapp.agents.", module=name)
    told = traceback.TracebackException.from_exception(error)
    _leave_out_our_frames(told)
    words, place = message_of(error), _place(told.stack)
    if isinstance(error, SyntaxError) and error.filename:
        words, place = error.msg, f" ({error.filename}, line {error.lineno})"
    text = ": ".join(part for part in (type(error).__name__, words.rstrip(".")) if part)
    refused = SettingsError(f"{said}: {text}{place}. Correct the module.", module=name)
    refused.add_note("".join(told.format()).rstrip())
    return refused


def _not_found(name: str, missing: str) -> str:
    """Return where the missing module, or the package that should contain it, was looked for."""
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    folders = [str(Path.cwd())] if package is None else list(getattr(package, "__path__", ()))
    if package is None:
        where = f"Python found no module {missing!r} in this folder ({folders[0]}), in PYTHONPATH, or among the installed packages."
    elif folders:
        where = f"the package {parent!r} ({', '.join(folders)}) has no module {last!r}."
    else:
        return f"{parent!r} ({package.__file__}) is a module and not a package: name {parent!r} alone."
    as_module = name.partition(":")[0].removesuffix(".py").replace("/", ".")
    if as_module != name:
        return f"{where} Write {as_module!r}: the name of a module, as Python imports it."
    beside = (f"{parent}.{each.name}".lstrip(".") for each in pkgutil.iter_modules(folders))
    return f"{where}{did_you_mean(missing, beside)} Correct AGNO_IMPORTS, or start in the folder that has the module."


def _leave_out_our_frames(told: traceback.TracebackException) -> None:
    """Leave the frames of the module's code and of its libraries."""
    ours = (f"{Path(__file__).parent}{os.sep}", f"{Path(importlib.__file__).parent}{os.sep}", "<frozen ")
    told.stack[:] = [each for each in told.stack if not each.filename.startswith(ours)]
    for earlier in (told.__cause__, told.__context__):
        if earlier is not None:
            _leave_out_our_frames(earlier)


def _place(stack: Sequence[traceback.FrameSummary]) -> str:
    """Return the last line of the user's own code, or of a library where there is none."""
    libraries = tuple({f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "purelib", "platlib")})
    own = [each for each in stack if not each.filename.startswith(libraries)] or stack
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
