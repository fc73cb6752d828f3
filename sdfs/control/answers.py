"""What an answer may be: whoever answers at the socket may be of another version, or broken."""

from __future__ import annotations

import json
import math
import posixpath
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sdfs.no_follow import is_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")
_MAX_PATH_BYTES = 4096
_MAX_TEXT = 1 << 20  # characters


class WrongAnswerError(Exception):
    """No owner of a store gives this answer; the message says what is wrong."""


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line of JSON, an object. Raises WrongAnswerError."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise WrongAnswerError("a line that is no JSON") from None
    if not isinstance(answer, dict):
        raise WrongAnswerError("a line that is no object")
    return answer


def parse_record(kind: type[_T], value: object) -> _T:
    """Parse a dataclass of `sdfs.tree.status`; fields that it does not have are passed over. Raises WrongAnswerError."""
    if not isinstance(value, dict):
        raise WrongAnswerError(f"no object for {kind.__name__}")
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in value:
            if not _fits(value[field.name], hints[field.name]):
                raise WrongAnswerError(f"a wrong {field.name} of {kind.__name__}")
        elif field.default is MISSING:
            raise WrongAnswerError(f"no {field.name} of {kind.__name__}")
    return kind(**{field.name: value[field.name] for field in fields(kind) if field.name in value})


def parse_list(value: object) -> list[Any]:
    """Raises WrongAnswerError."""
    if not isinstance(value, list):
        raise WrongAnswerError("no list")
    return value


def parse_path(value: object) -> str:
    """Parse a path of the tree: absolute, with nothing in it that is no name. Raises WrongAnswerError."""
    if not isinstance(value, str) or not value.startswith("/") or len(value) > _MAX_PATH_BYTES:
        raise WrongAnswerError("what is no path")
    if value != "/" and not all(map(is_name, value[1:].split("/"))):
        raise WrongAnswerError("a path with a name that is none")
    return value


def parse_inner_path(value: object, folder: str) -> str:
    """Parse the path of `folder`, a path of the tree as a user gave it, or of what is directly in it. Raises WrongAnswerError."""
    path, asked = parse_path(value), posixpath.normpath("/" + folder.lstrip("/"))
    if path != asked and posixpath.dirname(path) != asked:
        raise WrongAnswerError("a path that was not asked for")
    return path


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, get_args(hint)[1]) for one in value.values())
    if hint is int:
        return type(value) is int and abs(value) < 1 << 63
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    if hint is str:
        return isinstance(value, str) and len(value) <= _MAX_TEXT
    return value is None if hint is NoneType else False
