"""How contexts end: the section ``context``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ponderttt.settings.mapping import settings
from ponderttt.settings.values import CountOrZero


@settings
class ContextConfig:
    """Attention sinks, and what happens at the model's limit."""

    sinks: CountOrZero = Field(
        default=4,
        description="First tokens of a stream that stay visible once its first chunk has left a cache (attention sinks).",
    )
    at_limit: Literal["slide", "reread_half"] = Field(
        default="slide",
        description="What full does once a stream is longer than the model's limit. slide: the oldest chunk leaves the "
        "cache. reread_half: the last half of the limit is read again, from position 0, into an empty cache; for models "
        "with learned positions, such as GPT-2.",
    )
