"""How much of a param's and of a tag's value one MLflow server keeps."""

from __future__ import annotations

import logging
import re

from asynctrack.errors import RefusedError
from asynctrack.stores.base import Batch
from asynctrack.stores.keys import shorten
from asynctrack.stores.rest.client import RestClient
from asynctrack.stores.rest.version import server_version, version_numbers

__all__ = ["ValueLimits"]

logger = logging.getLogger("asynctrack")

#: characters of a tag that every version keeps; later ones keep 8000
_OLD_TAG = 5000
_LONGER_TAGS = (2, 17)
#: how a server refuses a long value: before 2.17, and since then with MLFLOW_TRUNCATE_LONG_VALUES=false
_REFUSED = re.compile(
    r": '?(?:(?P<param>Param value|params\[\d+\]\.value)|(?P<tag>Tag value|(?:tags\[\d+\]\.)?value)) ?'.*"
    r"(?:length limit of|maximum length of) (?P<most>\d+)\D*$",
    re.DOTALL,
)


class ValueLimits:
    """What is lost of the values that go to one server.

    From 2.11 on a server cuts a long value and does not say so. An earlier one (or one that was told to) refuses the
    whole batch and names its limit; then the value is shortened here, as a later server would.
    """

    def __init__(self, client: RestClient) -> None:
        self._client = client
        #: characters that the server keeps of a value
        self.kept = {"param": 6000, "tag": 8000}
        self._unsure = ""
        #: characters beyond which it has refused one
        self._taken: dict[str, int] = {}
        self._asked = False
        self._told: set[str] = set()

    async def ask(self, batch: Batch) -> None:
        """Find out how much the server keeps, before it gets a value of which it may not keep all.

        Raises `UnavailableError`.
        """
        if self._asked or not any(len(value) > _OLD_TAG for _, value in batch.tags):
            return
        version = version_numbers(await server_version(self._client))
        if version is None:
            self._unsure = " (8000 from MLflow 2.17 on; it does not tell its version)"
        if version is None or version < _LONGER_TAGS:
            self.kept["tag"] = _OLD_TAG
        self._asked = True

    def learn(self, error: RefusedError, batch: Batch) -> bool:
        """Whether the server has refused the batch because of a long value. If so, `cut` makes it shorter."""
        found = _REFUSED.search(str(error))
        if found is None:
            return False
        kind, most = ("param" if found["param"] else "tag"), int(found["most"])
        entries = batch.params if kind == "param" else batch.tags
        if not any(len(value) > most for _, value in entries):
            return False
        self.kept[kind] = self._taken[kind] = most
        return True

    def cut(self, batch: Batch) -> Batch:
        """The batch without what the server is known to refuse."""
        if not self._taken:
            return batch
        params, tags = (
            [(key, value[: self._taken.get(kind)]) for key, value in entries]
            for kind, entries in (("param", batch.params), ("tag", batch.tags))
        )
        return Batch(dict(batch.decoded), params, tags, batch.blocks)

    def tell_what_is_lost(self, run_id: str, batch: Batch) -> None:
        """Warn of the first such value of each kind: a server does not keep texts as they are."""
        for kind, entries in (("param", batch.params), ("tag", batch.tags)):
            for key, value in entries:
                if "\0" in value:
                    self._tell_once(
                        kind, f"run {run_id}: {kind} {shorten(key)} contains a NUL, which is stored as U+FFFD"
                    )
                if len(value) > self.kept[kind]:
                    unsure = self._unsure if kind == "tag" and kind not in self._taken else ""
                    message = f"run {run_id}: {kind} {shorten(key)} has {len(value)} characters; this server keeps"
                    self._tell_once(f"long {kind}", f"{message} {self.kept[kind]} of them{unsure}. Log an artifact too")

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("asynctrack: %s. Further ones are not reported", message)
