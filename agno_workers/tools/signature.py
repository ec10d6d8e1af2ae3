"""Convert a function's signature to the schema that a model reads, and a model's JSON to the arguments of a call.

One pydantic model is built per function, when it is decorated. Checks are strict (`"5"` is not an integer), unless the author uses
`Field(strict=False)` or a model of their own.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from agno_workers.core.output import readable
from agno_workers.core.tool import ToolContext
from agno_workers.errors import InvalidTool, message_of
from agno_workers.tools.refusal import InvalidArguments, refusal

_CONTEXT = "ctx"


@dataclass(frozen=True, eq=False)
class Signature:
    """The parameters of one function, for the model and for Python."""

    schema: dict[str, Any]
    """A JSON schema of type object, without `ctx`, `self` and arguments bound by a partial."""
    arguments_model: type[BaseModel]
    """The validator of the JSON. Its fields are `p0`, `p1` ... by position in `parameters`, with the real name as alias, because
    pydantic refuses some names that Python allows (`_x`, `copy`)."""
    parameters: tuple[inspect.Parameter, ...]
    """The parameters of a call, with `ctx`."""
    takes_context: bool
    takes_self: bool
    """True for an unbound method."""

    def bind(self, arguments: str, ctx: ToolContext) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments for a call, from a model's JSON text.

        Raises InvalidArguments, whose message is for the model.
        """
        try:
            checked = _validated(self.arguments_model, arguments)
        except ValidationError as error:
            raise InvalidArguments(refusal(error, list(self.schema["properties"]))) from error
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for position, parameter in enumerate(self.parameters):
            value = ctx if parameter.name == _CONTEXT else getattr(checked, f"p{position}")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                kwargs[parameter.name] = value
        return args, kwargs


def read_signature(function: Callable[..., Any], descriptions: Mapping[str, str]) -> Signature:
    """Read a function's signature. `descriptions` are the docstring's, by parameter.

    Raises InvalidTool with the names of the function and the parameter.
    """
    everything = _parameters(function)
    takes_self = bool(everything) and everything[0].name == "self" and _is_bare(everything[0])
    parameters = tuple(everything[1:] if takes_self else everything)
    for parameter in parameters:
        _refuse_unusable(function, parameter)
    fields = {
        f"p{position}": _field(function, parameter, descriptions.get(parameter.name, ""))
        for position, parameter in enumerate(parameters)
        if parameter.name != _CONTEXT
    }
    names = {f"p{position}": parameter.name for position, parameter in enumerate(parameters)}
    model, schema = _model_and_schema(function, fields, names)
    takes_context = any(parameter.name == _CONTEXT for parameter in parameters)
    return Signature(schema, model, parameters, takes_context, takes_self)


def describe(function: Callable[..., Any]) -> str:
    """Return the name of a function in errors: `module.Class.name`, with the object for a bound method."""
    plain = underlying(function)
    text = f"{getattr(plain, '__module__', None)}.{getattr(plain, '__qualname__', repr(plain))}"
    return f"{text} of {function.__self__!r}" if inspect.ismethod(function) else text


def underlying(function: Callable[..., Any]) -> Any:
    """Return the plain function inside partials, decorators, bound methods and callable objects: it has the name, the docstring
    and the globals.
    """
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif not inspect.isroutine(function):
            function = type(function).__call__
        else:
            return function


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(function).parameters.values()
    except (ValueError, NameError) as error:
        text = (
            f"{describe(function)} has no readable signature ({error}): wrap it in a function that has one."
        )
        raise InvalidTool(text) from None
    already_bound = _bound_by_partials(function)
    return [parameter for parameter in found if parameter.name not in already_bound]


def _bound_by_partials(function: Callable[..., Any]) -> set[str]:
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound |= set(function.keywords)
        function = function.func
    return bound


def _is_bare(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is parameter.empty


def _refuse_unusable(function: Callable[..., Any], parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        problem = "takes any number of arguments: name each parameter, or take one list or dict"
    elif parameter.name == _CONTEXT:
        if _is_bare(parameter) or "ToolContext" in str(parameter.annotation):
            return
        problem = "is reserved for the ToolContext: annotate it as ToolContext, or rename it"
    elif parameter.annotation in (ToolContext, "ToolContext"):
        problem = f"is annotated as ToolContext: rename it to {_CONTEXT!r}"
    elif _is_bare(parameter):
        problem = "has no annotation: add its type, such as str"
    else:
        return
    raise _invalid(function, parameter.name, problem)


def _field(function: Callable[..., Any], parameter: inspect.Parameter, description: str) -> Any:
    """Return the annotation, or the annotation and the default, for `create_model`."""
    annotation = _resolved(function, parameter)
    if parameter.default is None:
        annotation = Optional[annotation]  # noqa: UP045 - `x: str = None` is common, and `|` refuses a Literal's text
    annotation = _with_field(annotation, alias=parameter.name, description=description or None)
    return annotation if parameter.default is parameter.empty else (annotation, parameter.default)


def _resolved(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the annotation as a type. Each is resolved alone, because the names in the annotations of `ctx` and of the result may
    be imported for type checkers only.
    """

    def holder() -> None: ...

    holder.__annotations__ = {parameter.name: parameter.annotation}
    names = getattr(underlying(function), "__globals__", {})
    try:
        return readable(get_type_hints(holder, globalns=names, include_extras=True)[parameter.name])
    except Exception as error:  # an annotation is code: it may raise anything
        problem = f"has an annotation that cannot be resolved ({message_of(error)}): import or define its names at module level"
        raise _invalid(function, parameter.name, problem) from None


def _with_field(annotation: Any, *, alias: str, description: str | None) -> Any:
    """Add the name and the docstring's description first, so that an author's own `Field` wins; a string in `Annotated` is a
    description too.
    """
    base, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    metadata = [Field(description=item) if isinstance(item, str) else item for item in metadata]
    return operator.getitem(Annotated, (base, Field(alias=alias, description=description), *metadata))


def _model_and_schema(
    function: Callable[..., Any], fields: dict[str, Any], names: dict[str, str]
) -> tuple[type[BaseModel], dict[str, Any]]:
    try:
        return _build(fields)
    except Exception as error:  # pydantic raises TypeError and others for annotations that it cannot use
        for field, content in fields.items():
            try:
                _build({field: content})
            except Exception as cause:
                problem = f"has no JSON schema ({_first_line(cause)}): use a type that JSON has"
                raise _invalid(function, names[field], problem) from cause
        raise InvalidTool(f"{describe(function)} has no JSON schema: {_first_line(error)}") from error


def _build(fields: dict[str, Any]) -> tuple[type[BaseModel], dict[str, Any]]:
    config = ConfigDict(strict=True, extra="forbid")
    model = create_model("Arguments", __config__=config, **fields)
    schema = model.model_json_schema(schema_generator=_PlainSchema)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return model, schema


class _PlainSchema(GenerateJsonSchema):
    """Pydantic's schema without generated titles; defaults that JSON does not have are left out without a warning."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own declaration

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def _validated(model: type[BaseModel], arguments: str) -> BaseModel:
    """Validate the arguments. `5.0` is valid as an integer, as in JSON schema, since some models write integers that way."""
    try:
        return model.model_validate_json(arguments)
    except ValidationError as error:
        if not any(item["type"] == "int_type" for item in error.errors()):
            raise
        try:
            return model.model_validate_json(json.dumps(json.loads(arguments, parse_float=_integer_if_whole)))
        except ValueError:
            raise error from None


def _integer_if_whole(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _invalid(function: Callable[..., Any], parameter: str, problem: str) -> InvalidTool:
    name = describe(function)
    return InvalidTool(f"{name}: parameter {parameter!r} {problem}.", function=name, parameter=parameter)


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, PydanticUserError) else message_of(error)
    return text.partition("\n")[0]
