"""One mechanism for every verb: a settings model becomes a command or a function, and options become settings."""

import difflib
import inspect
import json
import re
import reprlib
import tomllib
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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
CONFIG_HELP = "TOML file, or the settings.json of an earlier run, that may set any option; flags win"
_SECRET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*:[^/?#]*@")
"""User and password before the host of a URI."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = 200
_GONE = ("precision", "float32")
"""A setting of earlier versions, with the value of today, which their settings.json names."""


class UsageError(SentrayError):
    """An option or a key of the config file that cannot be used."""

    status = 2


@dataclass(frozen=True)
class Option:
    """A field of settings as who sets it knows it.

    Attributes:
        name: Of the field.
        field: Type, default and description.
        panel: Heading in the help.
    """

    name: str
    field: FieldInfo
    panel: str = Settings.panel

    @property
    def key(self) -> str:
        """Its key in a config file and its keyword in Python: `test_fraction`."""
        return self.field.alias or self.name

    @property
    def flag(self) -> str:
        """Its name on the command line: `--test-fraction`, or `CORPUS` for an argument."""
        return self.key.upper() if self.is_argument else "--" + self.key.replace("_", "-")

    @property
    def is_argument(self) -> bool:
        """Whether it is given by position."""
        return "argument" in self.extra

    @property
    def extra(self) -> Mapping[str, Any]:
        """What `sentray.config.setting` was told besides."""
        return self.field.json_schema_extra if isinstance(self.field.json_schema_extra, dict) else {}

    @property
    def kind(self) -> Any:
        """Its type, without `None`."""
        kind = self.field.annotation
        if get_origin(kind) in (Union, types.UnionType):
            return next(part for part in get_args(kind) if part is not type(None))
        return kind

    def parameter(self) -> Any:
        """The annotation that Typer makes a parameter of."""
        several = get_origin(self.kind) is tuple
        if self.is_argument:
            argument = typer.Argument(
                metavar=self.flag, help=self.field.description, show_default=False, rich_help_panel="Arguments"
            )
            return Annotated[(list[str] if several else str) | None, argument]
        is_switch, values = self.kind is bool, get_args(self.kind) if get_origin(self.kind) is Literal else ()
        switch_off = f"/--{self.extra.get('off', 'no-' + self.flag[2:])}" if is_switch else ""
        option = typer.Option(
            self.flag + switch_off,
            metavar=None if is_switch else "|".join(values) or {int: "INTEGER", float: "NUMBER"}.get(self.kind, "TEXT"),
            help=f"{self.field.description}{self._default()}",
            show_default=False,
            rich_help_panel=self.panel,
            autocompletion=lambda: list(values),
        )
        return Annotated[(bool if is_switch else list[str] if several else str) | None, option]

    def _default(self) -> str:
        default = self.field.default
        if self.field.is_required():
            return " (required)"
        if isinstance(default, bool):
            default = "on" if default else self.extra.get("off", "off")
        return "" if default in (None, ()) else f" (default {default})"


def offered(model: type[Settings]) -> list[Option]:
    """The options of a verb: its own first, then those of each class it is made of."""
    found: dict[str, Option] = {}
    for parent in model.__mro__:
        panel = vars(parent).get("panel", Settings.panel)
        for name in inspect.get_annotations(parent):
            if name in model.model_fields and name not in model.unused:
                found.setdefault(name, Option(name, model.model_fields[name], panel))
    return [*found.values()]


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


def offer(app: typer.Typer, name: str, model: type[S], run: Callable[[S], None], with_help: bool = True) -> None:
    """Add a command to a Typer app: an option for each field of `model`, then `run`.

    Nothing is converted or defaulted by Typer: what is given reaches `resolve` as it was written.
    """

    def invoke(config: str | None, **given: Any) -> None:
        run(resolve(model, {name: value for name, value in given.items() if value not in (None, [])}, config))

    options = offered(model)
    annotations = {option.name: option.parameter() for option in options}
    config = typer.Option("--config", metavar="FILE", help=CONFIG_HELP, show_default=False)
    annotations["config"] = Annotated[str | None, config]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(n, keyword, default=None, annotation=a) for n, a in annotations.items()]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__, invoke.__doc__ = annotations, model.__doc__
    # Behind the first of a list that ends the words, none is an option any more.
    ends_in_list = any(option.is_argument and get_origin(option.kind) is tuple for option in options)
    app.command(
        name,
        cls=Command,
        add_help_option=with_help,
        # Where nothing has to be given, no words mean the defaults.
        no_args_is_help=with_help and any(option.field.is_required() for option in options),
        context_settings={"allow_interspersed_args": not ends_in_list, "max_content_width": 120},
    )(invoke)


def parse(model: type[S], words: Sequence[str]) -> S:
    """Settings from the words that follow a verb.

    Raises:
        UsageError: As the verb itself would end.
    """
    found: list[S] = []
    app = typer.Typer(add_completion=False)
    offer(app, "", model, found.append, with_help=False)
    try:
        app(list(words), standalone_mode=False)
    except MISUSE as error:
        raise UsageError(error.format_message()) from None
    return found[0]


def signature(model: type[Settings]) -> inspect.Signature:
    """How Python calls a verb: what the command line takes by position in its order, each option by its name."""
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            option.key,
            positional if option.is_argument else keyword,
            default=inspect.Parameter.empty if option.field.is_required() else option.field.default,
            annotation=option.kind if option.field.default is not None else option.kind | None,
        )
        for option in sorted(offered(model), key=lambda option: not option.is_argument)
    ]
    config = inspect.Parameter("config", keyword, default=None, annotation=str | None)
    progress = inspect.Parameter("progress", keyword, default=False, annotation=bool)
    return inspect.Signature([*parameters, config, progress])


def describe(model: type[Settings]) -> str:
    """What each keyword of `signature` means, one a line in the form of a docstring's `Args`."""
    described = {option.key: option.field.description for option in offered(model)}
    described |= {"config": CONFIG_HELP.replace("flags", "keywords"), "progress": "show progress and results"}
    return "\n".join(f"    {name}: {described[name]}." for name in signature(model).parameters)


def resolve(model: type[S], given: Mapping[str, Any], config: str | None = None) -> S:
    """Settings from flags over the config file over the defaults.

    Args:
        model: The verb's settings.
        given: Values of the flags by field name, as strings or typed.
        config: Path of a TOML or JSON file; its keys are the names of options, with `-` or `_`.

    Raises:
        UsageError: A value is missing or not valid, a key is unknown, or the file cannot be read.
    """
    found = {} if config is None else _read(config)
    from_file = by_field(model, {k: v for k, v in found.items() if (k, v) != _GONE}, f"the config file {config}")
    return checked(model, {**from_file, **given}, from_file.keys() - given, config)


def checked(model: type[S], values: Mapping[str, Any], from_file: Collection[str] = (), file: str | None = None) -> S:
    """Settings from values by field name, some of which a file has.

    Raises:
        UsageError: A value is missing or not valid.
    """
    _refuse_texts(model, values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_sentence(model, error, from_file, file)) from None


def by_field(model: type[Settings], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values by the name of their field, from values by the name of their option, with `-` or `_`.

    Raises:
        UsageError: There is no such option; the sentence says what sets it, and names the nearest that there is.
    """
    fields = {known: option.name for option in offered(model) for known in (option.name, option.key)}
    found = {}
    for key, value in values.items():
        if (name := fields.get(key.replace("-", "_"))) is None:
            raise UsageError(f"{source} sets {key!r}, which is no option here; {near(key.replace('-', '_'), fields)}")
        found[name] = value
    return found


def near(name: str, known: Collection[str]) -> str:
    """What a user may have meant by a name, in words."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {found[0]!r}?" if found else f"it may set {', '.join(sorted(known))}"


def _read(config: str) -> dict[str, Any]:
    """The config file's values."""
    try:
        content = Path(config).read_text(encoding="utf-8")
        values = json.loads(content) if config.endswith(".json") else tomllib.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it holds no keys")
    except OSError as error:
        raise UsageError(f"the config file {config} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the config file {config} is not valid: {error}") from error
    return values


def _refuse_texts(model: type[Settings], values: Mapping[str, Any]) -> None:
    """Refuse what is not UTF-8, and a URI with a password, before it stands in logs and the list of processes."""
    for name, value in values.items():
        texts = [text for text in (value if isinstance(value, list | tuple) else [value]) if isinstance(text, str)]
        # Python stands for bytes that are no text by halves of characters.
        if odd := next((text for text in texts if any("\ud800" <= sign <= "\udfff" for sign in text)), None):
            shown = odd.encode(errors="surrogateescape")[:100]
            raise UsageError(
                f"{flag(model, name)} is {shown!r}, which is not UTF-8: give it as UTF-8; a file of such a name, rename"
            )
        option = Option(name, model.model_fields[name])
        if "" in texts and name != "text" and (option.is_argument or name == "out"):
            raise UsageError(f"{option.flag} is empty: a variable of the shell without a value?")
        if any(map(_SECRET.match, texts)):
            raise UsageError(
                f"{flag(model, name)} has a key in its URI, which would stay in logs and results: leave it out, "
                "and give it to the file system, such as by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def _sentence(model: type[Settings], error: ValidationError, from_file: Collection[str], config: str | None) -> str:
    """The first thing wrong, by the name the user knows it under; all that is missing at once."""
    problems = error.errors(include_url=False)
    if missing := [flag(model, str(each["loc"][0])) for each in problems if each["type"] == "missing"]:
        return f"{' and '.join(missing)} must be given; --help shows every option"
    problem = problems[0]
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not problem["loc"]:
        return message
    name, value = str(problem["loc"][0]), problem["input"]
    where = f" in {config}" if name in from_file else ""
    is_plain = value is None or isinstance(value, str | int | float | list | tuple)
    shown = _SHORT.repr(value).replace("\n", " ") if is_plain else f"a {type(value).__name__}"
    return f"{flag(model, name)} is {shown}{where}: {message}"


def flag(model: type[Settings], name: str) -> str:
    """How the command line calls the field of a name or alias."""
    return next(Option(n, f).flag for n, f in model.model_fields.items() if name in (n, f.alias))
