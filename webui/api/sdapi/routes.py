"""All of /sdapi/v1, and the few routes beside it that its clients use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from webui.api.sdapi.absent import absent_routes
from webui.api.sdapi.context import Context
from webui.api.sdapi.generate import generate_routes
from webui.api.sdapi.lists import list_routes
from webui.api.sdapi.options import OptionBook
from webui.api.sdapi.pictures import picture_routes
from webui.api.sdapi.progress import progress_routes, task_routes
from webui.api.sdapi.system import controlnet_routes, system_routes

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.extensions.front import FrontExtensions
    from webui.inputs import InputStore
    from webui.jobs.service import JobService
    from webui.paths import Paths
    from webui.prompt import StyleBook
    from webui.settings import SettingsStore

PREFIX = "/sdapi/v1"
OPTIONS_FILE = "api-options.json"


def sdapi_routes(
    jobs: JobService,
    catalog: Catalog,
    store: SettingsStore,
    styles: StyleBook,
    inputs: InputStore,
    paths: Paths,
    extensions: FrontExtensions,
) -> APIRouter:
    """The routes of AUTOMATIC1111. The data folder keeps the options that are no settings."""
    options = OptionBook(paths.data_dir / OPTIONS_FILE, store, catalog, jobs)
    context = Context(jobs, catalog, store, styles, inputs, paths.outputs, options, extensions)
    router = APIRouter(tags=["sdapi"])
    for routes in (generate_routes, picture_routes, progress_routes, system_routes, list_routes):
        router.include_router(routes(context), prefix=PREFIX)
    router.include_router(task_routes(context))
    router.include_router(controlnet_routes())
    router.include_router(absent_routes(context))
    return router
