"""What the engine keeps in memory: seen and cleared, by administrators alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from webui.api.common import ERRORS, NO_STORE
from webui.api.responses import CacheList, CachesCleared, CacheView
from webui.api.viewer import AdminOnly

if TYPE_CHECKING:
    from webui.jobs.service import JobService


def cache_routes(jobs: JobService) -> APIRouter:
    """/caches."""
    router = APIRouter(prefix="/caches", tags=["caches"], responses=ERRORS, dependencies=[AdminOnly])

    @router.get("", response_model=CacheList)
    def list_caches(response: Response) -> CacheList:
        """Every cache with its entries, bytes and bounds, as it was when the last job ended."""
        response.headers.update(NO_STORE)
        return CacheList(caches=[CacheView(**asdict(cache), title=cache.title) for cache in jobs.caches()])

    @router.delete("", status_code=202, response_model=CachesCleared)
    def clear_all() -> CachesCleared:
        """Empty all of them, and give the memory back: at once, or when the running job is over.

        The next job loads what it needs. `/sdapi/v1/unload-checkpoint` does more: it ends the worker's process.
        """
        return _clear(())

    @router.delete("/{name}", status_code=202, response_model=CachesCleared)
    def clear_one(name: str) -> CachesCleared:
        """The same for one cache."""
        return _clear((name,))

    def _clear(names: Iterable[str]) -> CachesCleared:
        return CachesCleared(waits=jobs.clear_caches(names))

    return router
