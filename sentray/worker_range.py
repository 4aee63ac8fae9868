"""The number of workers that training takes, which may be a range."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator


class WorkerRange(BaseModel):
    """How many workers a run takes: a number, or any from `least` to `most`, written `1:4`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    least: int
    most: int

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        if not isinstance(value, int | str):
            return value
        found = re.fullmatch(r"([0-9]{1,6})(?::([0-9]{1,6}))?", str(value))
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= least <= most:
            raise ValueError("a number of workers from 1 on, or the least and the most of them, such as 1:4")
        return {"least": least, "most": most}

    @model_serializer
    def _written(self) -> int | str:
        return self.most if self.fixed else str(self)

    def __str__(self) -> str:
        return str(self.most) if self.fixed else f"{self.least}:{self.most}"

    @property
    def fixed(self) -> bool:
        """Whether it is one number."""
        return self.least == self.most
