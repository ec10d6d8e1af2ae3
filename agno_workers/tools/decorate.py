"""`@tool`: turns a Python function into a `Tool` that a model may call.

The description for the model comes from the signature (`signature.py`) and the docstring; `execute.py` makes the calls. A tool
that a model could not use is refused here, at import.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any, Literal, overload

import docstring_parser
import msgspec

from agno_workers.core.messages import ToolSpec
from agno_workers.core.policy import Retry
from agno_workers.core.run import WaitsFor
from agno_workers.core.tool import Effect, Policy, Tool
from agno_workers.errors import InvalidTool
from agno_workers.models.strict import can_be_closed
from agno_workers.tools.signature import Signature, describe, read_signature, underlying

ACCEPTED_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""The tool names that OpenAI and Anthropic accept."""


class FunctionTool(Tool, frozen=True, kw_only=True):
    """A tool made from a function: it knows the function's parameters, so its arguments are checked first.

    As an attribute of a class it binds like a method: `FolderTools(root).word_count` is a tool without `self`.
    """

    signature: Signature
    unbound: bool = False
    """True for a method without its object; it can be bound, but not executed."""

    def __get__(self, instance: object, owner: type | None = None) -> FunctionTool:
        if instance is None or not self.unbound:
            return self
        return msgspec.structs.replace(self, function=MethodType(self.function, instance), unbound=False)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | str = Effect.AT_LEAST_ONCE,
    timeout_s: float = 60.0,
    queue: str | None = None,
    strict: bool = False,
    max_attempts: int = 3,
    retry: Retry | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
    reconcile: Callable[..., Any] | None = None,
    on_unknown: Literal["tell", "ask"] = "tell",
    requires_confirmation: bool = False,
    requires_user_input: bool = False,
    user_input_fields: Sequence[str] = (),
    external_execution: bool = False,
    answer_within_s: float | None = None,
    on_timeout: Literal["reject", "approve", "fail"] = "reject",
    offload: bool = True,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | str = Effect.AT_LEAST_ONCE,
    timeout_s: float = 60.0,
    queue: str | None = None,
    strict: bool = False,
    max_attempts: int = 3,
    retry: Retry | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
    reconcile: Callable[..., Any] | None = None,
    on_unknown: Literal["tell", "ask"] = "tell",
    requires_confirmation: bool = False,
    requires_user_input: bool = False,
    user_input_fields: Sequence[str] = (),
    external_execution: bool = False,
    answer_within_s: float | None = None,
    on_timeout: Literal["reject", "approve", "fail"] = "reject",
    offload: bool = True,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Offer a function to models: `@tool`, or `@tool(effect="once", timeout_s=5)`.

    * `name`: the tool's name for the model; default: the function's name.
    * `description`: the tool's description for the model; default: the docstring without its parameters, whose
      descriptions go to the parameters (Google, NumPy and Sphinx style; `Annotated[..., Field(...)]` wins).
    * `effect`: the effect of a repeated call, see `Effect`; default: at_least_once. A transactional tool must take
      `ctx`, because it writes on `ctx.connection`.
    * `timeout_s`: seconds that one execution may take, with its arguments and its result; default 60. An async function
      that is late is cancelled. A plain function can't be stopped: it continues on its thread, where `ctx.cancelled()`
      tells it to return.
    * `queue`: the Celery queue of its calls; default: the setting `queues.tools`.
    * `strict`: ask the provider to make the model follow the schema, if it can; default: no. Arguments are checked
      here in either case. A schema with free keys or values of any type can't be strict.
    * `max_attempts`: the call is `dead` after this many executions that a crash interrupted; default 3.
    * `retry`, `retry_on`: attempts and delays of a call that raises `TryAgain` or one of these exceptions; default:
      4 attempts, and TryAgain only. After the last one the step is `dead`, and the model reads why. A `once` tool
      with `retry_on` needs a `reconcile` hook, which is asked first; `TryAgain` means that nothing has happened.
    * `reconcile`: for a `once` tool, a function that is called after a crash with the same arguments (and `ctx`). It
      returns the tool's result if the effect happened; `NOT_DONE` if it did not and can't any more (then the tool runs;
      a worker that seemed dead may only have been paused before the effect); None if it can't know.
    * `on_unknown`: when nobody knows, `tell` the model, or `ask` a person (`runs resolve`).
    * `requires_confirmation`: the call waits until a person approves or rejects it.
    * `requires_user_input`: the call waits until a person fills in `user_input_fields`, which the model does not see.
    * `external_execution`: the function is never called; somebody outside makes the call and records its result.
    * `answer_within_s`, `on_timeout`: the seconds that a person may take (default: until the run ends), and then:
      `reject` (the model is told), `approve` (a confirmation only) or `fail` the run.
    * `offload`: a large result is stored beside the transcript, which has a preview of it, see `Compaction`; False: it stays whole.

    A parameter named `ctx` receives the `ToolContext` and is not shown to the model. Async functions run in an event
    loop of their own. Plain functions, methods, callable objects and `functools.partial` work; the model does not see
    the arguments that a partial has bound.

    Raises InvalidTool when a model could not use the function.
    """

    def decorate(function: Callable[..., Any]) -> FunctionTool:
        _refuse_what_is_no_function(function)
        documentation = _documentation(function)
        signature = read_signature(function, _parameter_descriptions(documentation))
        policy = Policy(
            reconcile=reconcile is not None,
            on_unknown=on_unknown,
            needs=_need(function, requires_confirmation, requires_user_input, external_execution),
            fields=tuple(user_input_fields),
            types=_types(signature, user_input_fields),
            within_s=answer_within_s,
            on_timeout=on_timeout,
        )
        _refuse_policy(
            function, Effect(effect) if effect in list(Effect) else None, policy, signature, bool(retry_on)
        )
        return FunctionTool(
            spec=ToolSpec(
                name=_accepted_name(function, name),
                description=_accepted_description(function, description, documentation),
                parameters=_accepted_schema(
                    function, _without(signature.schema, policy.fields), strict=strict
                ),
                strict=strict,
            ),
            function=function,
            effect=_accepted_effect(function, effect, signature),
            timeout_s=_accepted_timeout(function, timeout_s),
            queue=queue,
            max_attempts=_accepted_attempts(function, max_attempts),
            retry=retry or Retry(),
            retry_on=tuple(retry_on),
            reconcile=reconcile,
            policy=policy,
            offload=offload,
            signature=signature,
            unbound=signature.takes_self,
        )

    return decorate if function is None else decorate(function)


def _types(signature: Signature, fields: Iterable[str]) -> dict[str, str]:
    properties = signature.schema["properties"]
    found = {field: properties.get(field, {}).get("type") for field in fields}
    return {field: kind for field, kind in found.items() if isinstance(kind, str)}


def _need(
    function: Callable[..., Any], confirmation: bool, user_input: bool, execution: bool
) -> WaitsFor | None:
    asked = {
        WaitsFor.CONFIRMATION: confirmation,
        WaitsFor.ANSWER: user_input,
        WaitsFor.EXECUTION: execution,
    }
    needs = [need for need, is_asked in asked.items() if is_asked]
    if len(needs) > 1:
        raise InvalidTool(
            f"{describe(function)} asks for {' and '.join(needs)}, but a call waits for one thing: choose one"
            " (a person who answers or executes may also reject)."
        )
    return needs[0] if needs else None


def _refuse_policy(
    function: Callable[..., Any], effect: Effect | None, policy: Policy, signature: Signature, retries: bool
) -> None:
    name, properties = describe(function), signature.schema["properties"]
    unknown = [field for field in policy.fields if field not in properties]
    problem = ""
    if effect is not Effect.ONCE and (policy.reconcile or policy.on_unknown == "ask"):
        problem = "has reconcile or on_unknown, which are for effect='once': other effects are run again"
    elif effect is Effect.ONCE and retries and not policy.reconcile:
        problem = "has retry_on and effect='once', and the call may have taken effect: add a reconcile hook, or raise TryAgain when it certainly has not"
    elif policy.on_unknown not in ("tell", "ask"):
        problem = f"has on_unknown={policy.on_unknown!r}: choose 'tell' or 'ask'"
    elif policy.on_timeout not in ("reject", "approve", "fail"):
        problem = f"has on_timeout={policy.on_timeout!r}: choose 'reject', 'approve' or 'fail'"
    elif policy.on_timeout == "approve" and policy.needs is not WaitsFor.CONFIRMATION:
        problem = "has on_timeout='approve', which is for requires_confirmation only"
    elif unknown:
        problem = (
            f"has no parameter {unknown[0]!r} for user_input_fields: it has {', '.join(properties) or 'none'}"
        )
    elif bool(policy.fields) != (policy.needs is WaitsFor.ANSWER):
        problem = "needs both requires_user_input=True and user_input_fields=[...], or neither"
    elif policy.within_s is not None and not (math.isfinite(policy.within_s) and policy.within_s > 0):
        problem = f"has answer_within_s={policy.within_s!r}: set seconds above 0, or None to wait until the run ends"
    if problem:
        raise InvalidTool(f"{name} {problem}.", function=name)


def _without(schema: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema for the model, without the fields that a person fills in."""
    if not fields:
        return schema
    properties = {name: value for name, value in schema["properties"].items() if name not in fields}
    required = [name for name in schema.get("required", []) if name not in fields]
    kept = {key: value for key, value in schema.items() if key != "required"}
    return kept | {"properties": properties} | ({"required": required} if required else {})


def _refuse_what_is_no_function(function: Any) -> None:
    if isinstance(function, Tool):
        raise InvalidTool(f"{function.name!r} is already a tool: use it, or decorate its function.")
    if isinstance(function, classmethod | staticmethod):
        raise InvalidTool(
            f"{describe(function.__func__)} is a {type(function).__name__}: write @tool below"
            " @staticmethod, and make a class method a plain method or a function."
        )
    if isinstance(function, type) or not callable(function):
        raise InvalidTool(f"{function!r} is not a function: pass a function, a method or a callable object.")
    if inspect.isgeneratorfunction(underlying(function)) or inspect.isasyncgenfunction(underlying(function)):
        raise InvalidTool(f"{describe(function)} is a generator: return a list or a text.")


def _documentation(function: Callable[..., Any]) -> docstring_parser.Docstring:
    """Return the parsed docstring; one that can't be parsed is the description, unchanged."""
    text = inspect.getdoc(underlying(function)) or ""
    if not text and not inspect.isroutine(function):
        text = inspect.getdoc(type(function)) or ""  # a callable object whose __call__ has no docstring
    try:
        return docstring_parser.parse(text)
    except Exception:  # it parses prose, and raises errors that it does not declare
        plain = docstring_parser.Docstring()
        plain.short_description = text
        return plain


def _parameter_descriptions(documentation: docstring_parser.Docstring) -> dict[str, str]:
    """Return the descriptions by parameter; NumPy's `a, b : int` describes both."""
    return {
        parameter_name.strip(): " ".join(parameter.description.split())
        for parameter in documentation.params
        if parameter.description
        for parameter_name in parameter.arg_name.split(",")
    }


def _accepted_name(function: Callable[..., Any], name: str | None) -> str:
    plain = underlying(function)
    if plain.__name__ == "<lambda>":
        raise InvalidTool(f"{describe(function)} can't be a tool: give it a name and annotations with def.")
    own_name = plain.__name__ if plain.__name__ != "__call__" else type(function).__name__
    chosen = own_name if name is None else name
    if not ACCEPTED_NAME.fullmatch(chosen):
        raise InvalidTool(
            f"{describe(function)} can't be called {chosen!r}: providers accept 1 to 64 letters, digits,"
            " _ and -. Choose one with @tool(name=...)."
        )
    return chosen


def _accepted_description(
    function: Callable[..., Any], description: str | None, documentation: docstring_parser.Docstring
) -> str:
    text = (description if description is not None else documentation.description or "").strip()
    if not text:
        raise InvalidTool(
            f"{describe(function)} has no description, so a model can't know when to call it:"
            " write a docstring or @tool(description=...)."
        )
    return text


def _accepted_schema(function: Callable[..., Any], schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    if strict and not can_be_closed(schema):
        types = {**schema["properties"], **schema.get("$defs", {})}
        name = next((name for name, each in types.items() if not can_be_closed(each)), "a parameter")
        raise InvalidTool(
            f"{describe(function)} is strict, but {name!r} has free keys, a value of any type or a fixed order of types, which"
            " strict schemas can't express: use a pydantic model with named fields, or leave strict out.",
            function=describe(function),
        )
    return schema


def _accepted_effect(function: Callable[..., Any], effect: Effect | str, signature: Signature) -> Effect:
    try:
        chosen = Effect(effect)
    except ValueError:
        raise InvalidTool(
            f"{describe(function)} has the unknown effect {effect!r}: choose one of"
            f" {', '.join(each.value for each in Effect)}."
        ) from None
    if chosen is Effect.TRANSACTIONAL and not signature.takes_context:
        raise InvalidTool(
            f"{describe(function)} is transactional but can't reach the transaction: add a parameter"
            " ctx: ToolContext and write on ctx.connection."
        )
    return chosen


def _accepted_timeout(function: Callable[..., Any], timeout_s: float) -> float:
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InvalidTool(
            f"{describe(function)} has timeout_s={timeout_s!r}: set a finite number of seconds above 0."
        )
    return float(timeout_s)


def _accepted_attempts(function: Callable[..., Any], max_attempts: int) -> int:
    if max_attempts < 1:
        raise InvalidTool(f"{describe(function)} has max_attempts={max_attempts!r}: set 1 or more.")
    return max_attempts
