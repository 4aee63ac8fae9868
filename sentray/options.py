"""One mechanism for every verb: a settings model becomes a command or a function, and options become settings."""

import difflib
import inspect
import json
import re
import reprlib
import tomllib
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from sentray.config import Settings
from sentray.errors import SentrayError

S = TypeVar("S", bound=Settings)

# Typer brings Click along under a name of its own, which changes with its version.
MISUSE: Any = typer.BadParameter.__base__
"""What Typer raises for words that it cannot read; `format_message` says which."""
_SECRET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*:[^/?#]*@")
"""User and password before the host of a URI."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = 200


class UsageError(SentrayError):
    """An option or a key of the config file that cannot be used."""

    status = 2


CONFIG_HELP = "TOML file, or the settings.json of an earlier run, that may set any option; flags win"


class Command(TyperCommand):
    """A command whose help lists its options in panels: under the headings of the settings that they come from."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list for each heading, in the order of the options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                heading = getattr(parameter, "rich_help_panel", None) or Settings.panel
                panels.setdefault(heading, []).append(record)
        for heading, records in panels.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def command(model: type[S], run: Callable[[S], None]) -> Callable[..., None]:
    """A function that Typer can offer as a command: an option for each field of `model`, then `run`.

    Nothing is converted or defaulted by Typer: what is given reaches `resolve` as it was written.
    """

    def invoke(config: str | None, **given: Any) -> None:
        run(resolve(model, {name: value for name, value in given.items() if value not in (None, [])}, config))

    fields = _offered_fields(model)
    annotations: dict[str, Any] = {name: _parameter(model, name, field) for name, field in fields.items()}
    annotations["config"] = Annotated[
        str | None, typer.Option("--config", metavar="FILE", help=CONFIG_HELP, show_default=False)
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(n, keyword, default=None, annotation=a) for n, a in annotations.items()]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = annotations
    invoke.__doc__ = model.__doc__
    return invoke


def signature(model: type[Settings]) -> inspect.Signature:
    """How Python calls a verb: what the command line takes by position in its order, each option by its name."""
    fields = _offered_fields(model)
    parameters = [
        inspect.Parameter(
            name if _is_argument(field) else field.alias or name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD if _is_argument(field) else inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.default,
            annotation=_plain(field.annotation) if field.default is not None else _plain(field.annotation) | None,
        )
        for name, field in sorted(fields.items(), key=lambda item: not _is_argument(item[1]))
    ]
    for name, kind, default in (("config", str | None, None), ("progress", bool, False)):
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=kind))
    return inspect.Signature(parameters)


def describe(model: type[Settings]) -> str:
    """What each keyword of `signature` means, one a line in the form of a docstring's `Args`."""
    described = {field.alias or name: field.description for name, field in _offered_fields(model).items()}
    described |= {"config": CONFIG_HELP.replace("flags", "keywords"), "progress": "show progress and results"}
    return "\n".join(f"    {name}: {described[name]}." for name in signature(model).parameters)


def context(model: type[Settings]) -> dict[str, Any]:
    """How Click reads a command's words: behind the first of a list that ends them, none is an option any more."""
    ends_in_list = any(_is_argument(field) and _is_list(field) for field in model.model_fields.values())
    return {"allow_interspersed_args": not ends_in_list, "max_content_width": 120}


def parse(model: type[S], words: Sequence[str]) -> S:
    """Settings from the words that follow a verb.

    Raises:
        UsageError: As the verb itself would end.
    """
    found: list[S] = []
    offered = typer.Typer(add_completion=False)
    offered.command(context_settings=context(model), add_help_option=False)(command(model, found.append))
    try:
        offered(list(words), standalone_mode=False)
    except MISUSE as error:
        raise UsageError(error.format_message()) from None
    return found[0]


def resolve(model: type[S], given: Mapping[str, Any], config: str | None = None) -> S:
    """Settings from flags over the config file over the defaults.

    Args:
        model: The verb's settings.
        given: Values of the flags by field name, as strings or typed.
        config: Path of a TOML or JSON file; its keys are the names of options, with `-` or `_`.

    Raises:
        UsageError: A value is missing or not valid, a key is unknown, or the file cannot be read.
    """
    from_file = _read(model, config) if config is not None else {}
    _refuse_secrets(model, {**from_file, **given})
    try:
        return model.model_validate({**from_file, **given})
    except ValidationError as error:
        raise UsageError(_sentence(model, error, from_file.keys() - given, config)) from None


def _refuse_secrets(model: type[Settings], values: Mapping[str, Any]) -> None:
    """Refuse a URI with a password, before it stands in logs, results and the list of processes for long.

    Raises:
        UsageError: There is one; the sentence does not repeat it.
    """
    for name, value in values.items():
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and _SECRET.match(text) for text in texts):
            raise UsageError(
                f"{option_name(model, name)} has a key in its URI, which would stay in logs and results: leave it out, "
                "and give it to the file system, such as by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def option_name(model: type[Settings], name: str) -> str:
    """How the command line calls a field: `--test-fraction`, or `CORPUS` for an argument."""
    field = model.model_fields[name]
    return name.upper() if _is_argument(field) else "--" + (field.alias or name).replace("_", "-")


def _read(model: type[Settings], config: str) -> dict[str, Any]:
    """The config file's values by field name."""
    try:
        content = Path(config).read_text(encoding="utf-8")
        values = json.loads(content) if config.endswith(".json") else tomllib.loads(content)
    except OSError as error:
        raise UsageError(f"the config file {config} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the config file {config} is not valid: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"the config file {config} is not valid: it holds no keys")
    return by_field(model, values, f"the config file {config}")


def by_field(model: type[Settings], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values by the name of their field, from values by the name of their option, with `-` or `_`.

    Raises:
        UsageError: There is no such option; the sentence says what sets it, and names the nearest that there is.
    """
    fields = _names(_offered_fields(model))
    unknown = [key for key in values if key.replace("-", "_") not in fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0].replace("-", "_"), fields, n=1, cutoff=0.5)
        cure = f"did you mean {near[0]!r}?" if near else f"it may set {', '.join(sorted(fields))}"
        raise UsageError(f"{source} sets {unknown[0]!r}, which is no option here; {cure}")
    return {fields[key.replace("-", "_")]: value for key, value in values.items()}


def _sentence(model: type[Settings], error: ValidationError, from_file: Collection[str], config: str | None) -> str:
    """The first thing wrong, by the name the user knows it under; all that is missing at once."""
    problems = error.errors(include_url=False)
    by_name = _names(model.model_fields)
    missing = [option_name(model, by_name[str(p["loc"][0])]) for p in problems if p["type"] == "missing"]
    if missing:
        return f"{' and '.join(missing)} must be given; --help shows every option"
    problem = problems[0]
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not problem["loc"]:
        return message
    name = by_name[str(problem["loc"][0])]
    where = f" in {config}" if name in from_file else ""
    return f"{option_name(model, name)} is {_shown(problem['input'])}{where}: {message}"


def _shown(value: Any) -> str:
    """A value on one line; of what nobody writes as an option, such as a table, only the name of its type."""
    if value is None or isinstance(value, str | int | float | list | tuple):
        return _SHORT.repr(value).replace("\n", " ")
    return f"a {type(value).__name__}"


def _parameter(model: type[Settings], name: str, field: FieldInfo) -> Any:
    """The annotation from which Typer makes the option or argument of a field."""
    if _is_argument(field):
        argument = typer.Argument(
            metavar=name.upper(), help=field.description, show_default=False, rich_help_panel="Arguments"
        )
        return Annotated[(list[str] if _is_list(field) else str) | None, argument]
    kind = _plain(field.annotation)
    option = option_name(model, name)
    if kind is bool:
        off = _extra(field).get("off", "no-" + option.removeprefix("--"))
        option = f"{option}/--{off}"
    annotation = bool if kind is bool else list[str] if _is_list(field) else str
    return Annotated[
        annotation | None,
        typer.Option(
            option,
            metavar=None if kind is bool else _metavar(kind),
            help=f"{field.description}{_default(field)}",
            show_default=False,
            rich_help_panel=_panel(model, name),
            autocompletion=lambda: list(get_args(kind)) if get_origin(kind) is Literal else [],
        ),
    ]


def _plain(annotation: Any) -> Any:
    """A field's type without `None` and without bounds."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _is_list(field: FieldInfo) -> bool:
    return get_origin(_plain(field.annotation)) is tuple


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    if field.default is None or field.default == ():
        return ""
    if isinstance(field.default, bool):
        return f" (default {'on' if field.default else _extra(field).get('off', 'off')})"
    return f" (default {field.default})"


def _offered_fields(model: type[Settings]) -> dict[str, FieldInfo]:
    """The fields of a verb's options: its own first, then those of each class it is made of."""
    names = dict.fromkeys(name for parent in model.__mro__ for name in inspect.get_annotations(parent))
    offered = model.model_fields.keys() - model.unused
    return {name: model.model_fields[name] for name in names if name in offered}


def _names(fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """The name of each field by that and by its option's."""
    return {known: name for name, field in fields.items() for known in (name, field.alias or name)}


def _panel(model: type[Settings], name: str) -> str:
    """The heading of the class that declares a field."""
    declares = next(parent for parent in model.__mro__ if name in inspect.get_annotations(parent))
    return str(vars(declares).get("panel", Settings.panel))


def _is_argument(field: FieldInfo) -> bool:
    return "argument" in _extra(field)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
