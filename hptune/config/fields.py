"""Field types the config's sections share, and the rules every section keeps."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from hptune.errors import abridged

LONGEST_QUOTE = 100
LONGEST_PATH, LONGEST_FILE_NAME = 4095, 255  # bytes, as on Linux


class Section(BaseModel):
    """One block of the config: unknown keys are errors, numbers are not made from text, and `key:` left empty means its default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}
        return value


def needs(words: str) -> WrapValidator:
    """Say `needs {words}` where none of a union's members fits, instead of one complaint for each of them."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"needs {words}, got {describe(value)}") from None

    return WrapValidator(validate)


def describe(value: object) -> str:
    """Name a value as it stands in the config: the text 'many', 1.9, nothing, a list."""
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a block of keys"
    return "a list" if isinstance(value, list) else abridged(str(value), LONGEST_QUOTE)


def quoted(text: str) -> str:
    """Return `text` in quotes, escaped as in Python, the middle left out where it is long."""
    return abridged(repr(text), LONGEST_QUOTE)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'x'?` for the nearest known word, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def is_file_target(target: str) -> bool:
    """Whether `target` names a file (`file.py:name`) rather than an importable module (`package.module:name`)."""
    where, _, name = target.rpartition(":")
    return name.isidentifier() and (where.endswith(".py") or "/" in where or "\\" in where)


def _check_target(value: str) -> str:
    where, _, name = value.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"{quoted(value)} is no target: write path/to/file.py:name or package.module:name")
    return _check_path(value)


def _check_path(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    too_long = len(os.fsencode(value)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in Path(value).parts)
    if too_long or "\0" in value:
        raise ValueError(f"{quoted(value)} is no path that a file system takes")
    return value


def _check_distinct(values: Sequence[float]) -> Sequence[float]:
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"the values repeat themselves: {abridged(', '.join(map(str, repeated)), LONGEST_QUOTE)}")
    return values


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
InnerFraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9)]
TargetName = Annotated[str, AfterValidator(_check_target)]
PathText = Annotated[str, AfterValidator(_check_path)]
Distinct = AfterValidator(_check_distinct)
LoadersOrAuto = Annotated[Annotated[int, Field(ge=0, le=10**3)] | Literal["auto"], needs("a whole number of at least 0, or auto")]
