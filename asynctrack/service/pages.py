"""Pages of a search: one page for the user, or the items of all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrack.stores.base import Page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrack.entities import PagedList

__all__ = ["PAGE", "all_items", "paged"]

#: entities in one page, when all pages are read
PAGE = 1000


def paged(page: Page) -> PagedList[Any]:
    """A store's page as a list with the ``token`` of the next page."""
    from asynctrack.entities import PagedList

    return PagedList(page.items, page.token)


async def all_items(ask: Callable[[str | None], Awaitable[Page]]) -> list[Any]:
    """The items of every page; ``ask(token)`` gets one."""
    page = await ask(None)
    found = list(page.items)
    while page.token is not None:
        page = await ask(page.token)
        found += page.items
    return found
