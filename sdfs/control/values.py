"""Values of the types of `sdfs.control.requests` ↔ JSON. What arrives is looked at: the other side may be of another version, or broken.

A field that a dataclass does not have is passed over; one that is missing takes its default.
"""

# Paths need not be decodable.
from __future__ import annotations

import json
import math
import os
import posixpath
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sdfs.control.requests import VERSION, Request
from sdfs.system.no_follow import is_path

_T = TypeVar("_T")
_MAX_TEXT = 1 << 20  # characters


class WrongValueError(Exception):
    """No program of this protocol says this; the message says what is wrong."""


class OtherVersionError(Exception):
    """The other side speaks another version of the protocol; the message says which."""


def pack_line(message: Mapping[str, object]) -> bytes:
    """Pack a message as a line of JSON, with the version of the protocol."""
    return json.dumps({"sdfs": VERSION, **message}).encode() + b"\n"


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line of JSON, an object of this version. Raises WrongValueError, OtherVersionError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise WrongValueError("a line that is no JSON") from None
    if not isinstance(message, dict):
        raise WrongValueError("a line that is no object")
    if type(version := message.get("sdfs")) is not int:
        raise WrongValueError("a line without a version")
    if version != VERSION:
        raise OtherVersionError(f"version {version} of SDFS's control protocol")
    return message


def pack(value: object) -> Any:
    """Pack a value for JSON. A path becomes absolute."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return os.path.abspath(value) if isinstance(value, Path) else value


def parse(hint: Any, value: object) -> Any:
    """Parse a value of the type `hint`. Raises WrongValueError."""
    if isinstance(hint, type) and is_dataclass(hint):
        return parse_record(hint, value)
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        hints = [one for one in get_args(hint) if one is not NoneType]
        if len(hints) == 1:
            return parse(hints[0], value)
    if not _fits(value, hint):
        raise WrongValueError(f"what is no {_name(hint)}")
    return Path(str(value)) if hint is Path else value


def parse_record(kind: type[_T], value: object) -> _T:
    """Parse a dataclass. Raises WrongValueError."""
    if not isinstance(value, dict):
        raise WrongValueError(f"no object for {kind.__name__}")
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            if not _fits(value[field.name], hints[field.name]):
                raise WrongValueError(f"a wrong {field.name} of {kind.__name__}")
        elif field.default is MISSING:
            raise WrongValueError(f"no {field.name} of {kind.__name__}")
    return kind(**{name: value[name] for name in hints if name in value})


def parse_arguments(request: Request, value: object) -> dict[str, Any]:
    """Parse the arguments of a request. Raises WrongValueError."""
    if not isinstance(value, dict):
        raise WrongValueError("arguments that are no object")
    for name in request.arguments:
        if name not in value and request.signature.parameters[name].default is Parameter.empty:
            raise WrongValueError(f"no {name}")
    return {name: parse(hint, value[name]) for name, hint in request.arguments.items() if name in value}


def parse_list(value: object) -> list[Any]:
    """Raises WrongValueError."""
    if not isinstance(value, list):
        raise WrongValueError("no list")
    return value


def check_inner_path(path: str, folder: str) -> None:
    """Raise WrongValueError unless `path` is that of `folder`, a path of the tree as a user gave it, or of what is directly in it."""
    asked = posixpath.normpath("/" + folder.lstrip("/"))
    if path != asked and posixpath.dirname(path) != asked:
        raise WrongValueError("a path that was not asked for")


def _name(hint: Any) -> str:
    return "path" if get_origin(hint) is Annotated and is_path in hint.__metadata__ else getattr(hint, "__name__", str(hint))


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Annotated:
        return _fits(value, hint.__origin__) and all(check(value) for check in hint.__metadata__)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(one, get_args(hint)[1]) for one in value.values())
    if hint is int:
        return type(value) is int and abs(value) < 1 << 63
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    if hint in (str, Path):
        return isinstance(value, str) and len(value) <= _MAX_TEXT
    if hint is bool:
        return isinstance(value, bool)
    return value is None if hint is NoneType else hint is Any
