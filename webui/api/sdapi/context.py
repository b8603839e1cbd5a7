"""What the routes share: the parts of the program behind them, and which job a client's task is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.api.sdapi.from_infotext import G, with_infotext
from webui.api.sdapi.options import CHECKPOINT, VAE, OptionBook
from webui.api.sdapi.requests import Generation
from webui.api.sdapi.translate import Tools
from webui.catalog.lookup import find_restorer
from webui.errors import ModelNotFound

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.extensions.front import FrontExtensions
    from webui.inputs import InputStore
    from webui.jobs.service import JobService
    from webui.prompt import StyleBook
    from webui.settings import SettingsStore

KEPT_TASKS = 2000


class Tasks:
    """Names that clients give their requests (`force_task_id`), with the job that each became. Of a name that is used
    twice the later job counts; everybody has names of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def add(self, user: str, task: str | None, job: str) -> None:
        if not task:
            return
        with self._lock:
            self._jobs[user, task] = job
            self._jobs.move_to_end((user, task))
            while len(self._jobs) > KEPT_TASKS:
                self._jobs.popitem(last=False)

    def job_of(self, user: str, task: str) -> str | None:
        with self._lock:
            return self._jobs.get((user, task))

    def task_of(self, user: str, job: str) -> str | None:
        with self._lock:
            return next((task for (owner, task), found in self._jobs.items() if (owner, found) == (user, job)), None)


@dataclass(frozen=True)
class Context:
    """Everything that the routes need."""

    jobs: JobService
    catalog: Catalog
    store: SettingsStore
    styles: StyleBook
    inputs: InputStore
    outputs: Path
    options: OptionBook
    extensions: FrontExtensions
    tasks: Tasks = field(default_factory=Tasks)

    def tools(self, user: str) -> Tools:
        """What translating a request of this user takes."""
        return Tools(
            self.styles.apply,
            lambda data: self.inputs.add(data, user).reference,
            self.extensions.panels(),
            lambda name: find_restorer(self.catalog.face_restorers, name) is not None,
        )

    def understood(self, body: G) -> G:
        """The request with an infotext that an extension reads in the form that we do."""
        own = self.extensions.foreign_text(body.infotext, {}) if body.infotext else None
        return body if own is None else body.model_copy(update={"infotext": own})

    def overrides(self, body: Generation) -> dict[str, Any]:
        """The options of this request alone. A checkpoint or VAE that only an infotext names is dropped when it is not
        here; one that the request itself names must be."""
        found = dict(with_infotext(body).override_settings)
        if body.infotext and CHECKPOINT in found and CHECKPOINT not in body.override_settings:
            known = self.catalog.snapshot.index.find(found[CHECKPOINT])
            found[CHECKPOINT] = known.name if known else None
        if body.infotext and VAE in found and VAE not in body.override_settings:
            try:
                self.catalog.find_vae(found[VAE])
            except ModelNotFound:
                found[VAE] = None
        return found
