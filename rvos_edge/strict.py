"""The base class of all pydantic models that are read from files or options."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A model that refuses unknown fields and cannot be changed once it is made.

    Example:
        >>> class Size(StrictModel):
        ...     height: int
        >>> Size(height=288).height
        288
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
