"""The YAML file of `prodsys task create`, and the checks of every field that later names a file or a command word.

No field may hold a shell metacharacter, a blank, `..` or a control character; slashes stand where they must.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from prodsys_core.catalogue import RAW_NAME
from prodsys_core.config import AbsolutePath, Section, text_like

_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_PARTS = rf"({_SEGMENT}/)+"
PlainName = Annotated[str, Field(pattern=rf"^{_SEGMENT}$", max_length=50)]

HOME_LENGTH = 300


def check_home(path: str) -> str:
    """An absolute directory of plain names, '/' at its end; raises ValueError."""
    if len(path) > HOME_LENGTH:
        raise ValueError(f"expected at most {HOME_LENGTH} characters")
    if not re.fullmatch(f"/{_PARTS}", path):
        raise ValueError(
            "expected an absolute path of plain names that ends with '/', such as '/scratch/raw/'"
        )
    return path


_AS_LIST = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
RelativePath = Annotated[
    str,
    Field(max_length=300),
    text_like(_PARTS, "plain names with '/' after each, such as 'generalprod/testcoral/'"),
]
HomePath = Annotated[str, AfterValidator(check_home)]
RawName = Annotated[str, text_like(RAW_NAME, "a file name cdrCCCCC-RRRRRR.raw")]


class MergeSizes(Section):
    """A merged file is closed before it would pass one of these."""

    mdst_bytes: int = Field(default=4_500_000_000, ge=1)
    mdst_events: int | None = Field(default=None, ge=1)
    hist_bytes: int = Field(default=4_500_000_000, ge=1)
    dump_bytes: int = Field(default=2_150_000_000, ge=1)
    dump_files: int = Field(default=1000, ge=1)


class TaskFile(Section):
    """A task as its manager writes it."""

    name: Annotated[str, Field(pattern=rf"^{_SEGMENT}$", max_length=200)]
    type: Literal["test production", "mass production", "technical production", "DDD filtering"]
    site: Annotated[list[PlainName], _AS_LIST, Field(min_length=1, max_length=9)]
    production: PlainName
    path: RelativePath
    soft: PlainName
    year: int | None = Field(default=None, ge=1990, le=2100)
    period: Annotated[str, Field(pattern=rf"^({_SEGMENT})?$", max_length=50)] = ""
    prodslt: int = Field(default=0, ge=0, le=999)
    phastver: int = Field(default=7, ge=0, le=999)
    template: Annotated[str, Field(pattern=rf"^{_SEGMENT}$", max_length=100)] = "template.opt"
    files_source: Literal["runs list", "files list"]
    runs: list[Annotated[int, Field(ge=1, le=999_999_999)]] = Field(default_factory=list)
    files: list[RawName] = Field(default_factory=list)
    catalogue: Annotated[AbsolutePath, Field(max_length=1000)] | None = None
    files_home: HomePath
    files_home_prefix: HomePath
    max_attempts: int = Field(default=5, ge=1, le=100)
    merge: MergeSizes = MergeSizes()
    comment: str = Field(default="", max_length=2000)

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.files_source == "runs list" and not (self.runs and self.catalogue and not self.files):
            text = "expected `runs` and `catalogue`, and no `files`, with files_source 'runs list'"
            raise PydanticCustomError("source", text, {"key": "files_source"})
        if self.files_source == "files list" and (not self.files or self.runs):
            text = "expected `files`, and no `runs`, with files_source 'files list'"
            raise PydanticCustomError("source", text, {"key": "files_source"})
        return self
