"""What `asynctrack.sync` says of each spool."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Shipment"]


class Shipment(NamedTuple):
    """What `sync` did with one spool.

    ``spool``: its folder. ``store``: the URI of the store it was delivered to.

    ``state``: "delivered" (the spool is deleted, except for refused events),
    "up to date" (everything is delivered so far, and its program is still
    running), "partly" (the rest stays in the spool; ``problem`` says why),
    "busy" (its program or another sync is delivering it), "failed"
    (``problem`` says why).

    ``delivered``, ``rejected``: numbers of events stored and refused.
    ``left``: about how many events are left.
    """

    spool: str
    store: str
    state: str
    delivered: int = 0
    rejected: int = 0
    left: int = 0
    problem: str | None = None
