"""Finding a run by its uid, which stands in a tag where the server has given it an id of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asynctrack.constants import UID_TAGS, LifecycleStage
from asynctrack.entities import Run, RunInfo
from asynctrack.stores.rest.api import Api
from asynctrack.stores.rest.bodies import MOST_FOUND
from asynctrack.stores.rest.decoding import each, experiment_of, run_of

__all__ = ["RunFinder"]

_UID = re.compile(r"[0-9a-f]{32}")
#: experiments asked for, and searched, at a time; and how often
_PAGE, _MOST_PAGES = 1000, 1000
#: runs of one uid, of which there should be one, that are looked at
_TWINS = 10
#: uids whose run is known
_REMEMBERED = 1024


class RunFinder:
    """Looks runs up by uid, and remembers which id the server gave them.

    A program whose server is away knows its run by the uid alone, and hands it on: to its children, to the programs
    that follow it. What they log goes to a run that the server does not know by that name.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ids: dict[str, str] = {}

    def known(self, run_id: str) -> str:
        """The run's id, where ``run_id`` was found to be a uid; else what was given."""
        return self._ids.get(run_id, run_id)

    async def id_of(self, uid: str) -> str | None:
        """The id of the run that was created with this uid, in whatever experiment; None where there is none."""
        if not _UID.fullmatch(uid):
            return None
        token: str | None = None
        for _ in range(_MOST_PAGES):
            body = {"view_type": "ALL", "max_results": _PAGE, "filter": "", "order_by": []}
            answer = await self._api.search("/experiments/search", body, token, "experiments")
            found = await self.find(uid, [one.experiment_id for one in each(answer, "experiments", experiment_of)])
            if found is not None:
                if len(self._ids) >= _REMEMBERED:
                    self._ids.clear()
                self._ids[uid] = found.run_id
                return found.run_id
            last, token = token, str(answer.get("next_page_token") or "")
            if not token or token == last:
                break
        return None

    async def find(self, uid: str, experiment_ids: Sequence[str]) -> RunInfo | None:
        """The run that was created with this uid in one of these experiments; a deleted one too."""
        for tag in UID_TAGS:  # MLflow's filters know no "or"
            found = [run.info for run in await self._tagged(tag, uid, experiment_ids, _TWINS)]
            if found:
                # Of two, everybody has to find the same one, and not one that was deleted because of the other.
                return min(found, key=lambda info: (info.lifecycle_stage == LifecycleStage.DELETED, info.run_id))
        return None

    async def all(self, uid: str, experiment_ids: Sequence[str], most: int) -> list[Run]:
        """Every such run, of which there should be one."""
        found: list[Run] = []
        for tag in UID_TAGS:
            if len(found) < most:
                found += await self._tagged(tag, uid, experiment_ids, most - len(found))
        return found

    async def _tagged(self, tag: str, uid: str, experiment_ids: Sequence[str], most: int) -> list[Run]:
        if not experiment_ids:
            return []
        body = {
            "experiment_ids": list(experiment_ids),
            "filter": f"tags.`{tag}` = '{uid}'",
            "run_view_type": "ALL",
            "max_results": most,
        }
        answer = await self._api.post("/runs/search", body, "runs", "next_page_token", most=MOST_FOUND)
        return each(answer, "runs", run_of)
