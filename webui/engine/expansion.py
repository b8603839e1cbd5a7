"""A request as it is done: one job, or many cells that an extension, or a folder of pictures, makes of it.

The cells are ordinary jobs, run one after the other in the same thread; to whoever watches they are one. Each picture
of a cell is recorded under the cell's own params, so it can be found and replayed by itself; a sheet (a grid, say) is
recorded under the whole request. What is finished is written to a ledger, so that the same request, interrupted or
lost in a crash and queued again, goes on where it ended.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from PIL import Image as PillowImage

import webui
from webui import infotext
from webui.engine.attempts import run_job
from webui.engine.checkpoints.loader import import_libraries
from webui.engine.control import Control
from webui.engine.desk import EngineDesk
from webui.engine.extensions import JobExtensions, completed, refused, rewritten
from webui.engine.latents.preview import QUALITY
from webui.engine.memory.usage import give_back
from webui.engine.reporting import STAGES
from webui.engine.saving.keeping import MadePicture, keep_picture
from webui.engine.saving.ledger import DoneCell, Ledger
from webui.engine.shared import Tools
from webui.errors import InvalidParams, ModelNotFound, WebUIError
from webui.events import Event, Extensions, Finished, Image, Memory, Preview, Started, Step, Warning
from webui.extensions import Cell, CellResult, Cells, Draft, Expansion, Host, Sheet
from webui.names import AUTOMATIC
from webui.params import WHOLE_JOB, GenerationParams
from webui.pictures.opening import open_own
from webui.provenance import Environment, SavedPicture, SaveHook

GRIDS = "txt2img-grids"
MAX_CELLS = 10_000
MAX_DRAFT_SIDE = 1536  # pixels
INTERRUPTED = CellResult(error="The job was interrupted.", interrupted=True)
SKIPPED = CellResult(error="Skipped.")
Emit = Callable[[Event], None]
Wanted = Cell | Draft | Sheet | None
Ask = Callable[[], Wanted]


def run_request(
    tools: Tools, params: GenerationParams, control: Control, emit: Emit, user: str = "", made: Sequence[Image] = ()
) -> None:
    """Do what `user` asks for; the events are those of one job. Raises the errors of its parts.

    `made`: its pictures that are saved already. Those of a script or a folder are found in the ledger.
    """
    import_libraries()  # before the job has objects of its own: they, and its networks, would stay for good
    host = tools.extensions

    def report() -> None:
        for notice in host.take_notices():
            emit(Warning("extension", notice))
        if host.manifests:
            emit(Extensions(host.report()))

    def tell(event: Event) -> None:
        if isinstance(event, Finished):
            report()
        emit(event)

    try:
        if params.sources:
            _run_folder(tools, params, control, tell, user)
        else:
            _run(tools, rewritten(host, params), control, tell, user, made)
    except WebUIError:
        report()
        raise


def _run(
    tools: Tools, params: GenerationParams, control: Control, tell: Emit, user: str, made: Sequence[Image]
) -> None:
    host = tools.extensions
    script = next((name for name in params.extension_values if _is_script(host, name)), None)
    if script is None:
        run_job(tools, params, control, tell, made)
        return
    asked = {script: params.extension_values[script]}
    inner, desk = params.without_extension(script), EngineDesk(tools.paths, tools.catalog)
    expansion = next((answer for _, answer in host.ask("expand", asked, request=inner, desk=desk)), None)
    if not isinstance(expansion, Expansion):
        raise refused(host, script)
    ledger = Ledger.of(tools.paths.cache_dir, params, user)
    cells = _Cells(
        *(tools, params, expansion, control, tell, ledger),
        ask=lambda step: host.guard(script, "expand", step),
        prepare=lambda cell: completed(host, cell),  # the whole was rewritten, and what a rewriting adds is added once
    )
    cells.run()
    if cells.nothing:
        raise refused(host, script)


def _run_folder(tools: Tools, params: GenerationParams, control: Control, tell: Emit, user: str) -> None:
    """Every picture of a folder is a cell, so one that cannot be worked on does not stop the others."""
    if any(_is_script(tools.extensions, name) for name in params.extension_values):
        raise InvalidParams("A script and a folder of pictures cannot be one job.", "Leave one of them out.")

    def cells() -> Cells:
        for number, source in enumerate(params.sources):
            yield Cell(params.for_source(number), label=source.name or f"Picture {number + 1}")

    expansion = Expansion(cells(), pictures=len(params.sources) * _pictures_of_cell(params))
    ledger = Ledger.of(tools.paths.cache_dir, params, user)
    cells_of_all = _Cells(
        *(tools, params, expansion, control, tell, ledger),
        ask=lambda step: step(),
        prepare=lambda cell: rewritten(tools.extensions, cell),
    )
    cells_of_all.run()


def _pictures_of_cell(params: GenerationParams) -> int:
    return 1 if params.extras is not None else params.pictures


class _Quiet(Control):
    """The control of a cell: it obeys the job's."""

    def __init__(self, outer: Control) -> None:
        super().__init__()
        self._outer = outer

    @property
    def interrupted(self) -> bool:
        return self._outer.interrupted

    @property
    def skipped(self) -> bool:
        return self._outer.skipped

    @property
    def stopping(self) -> bool:
        return self._outer.stopping

    def batch_done(self) -> None:
        self._outer.batch_done()


def _is_script(host: Host, name: str) -> bool:
    panel = host.manifests[name].panel
    return panel is not None and panel.kind == "script"


class _Cells:
    """One expanded job."""

    def __init__(
        self,
        tools: Tools,
        params: GenerationParams,
        expansion: Expansion,
        control: Control,
        emit: Emit,
        ledger: Ledger,
        *,
        ask: Callable[[Ask], Wanted],
        prepare: Callable[[GenerationParams], GenerationParams],
    ) -> None:
        """`ask` calls what it is given, which is a step of the expansion; None: it failed, and that was said.
        `prepare` makes a cell's params those that are run."""
        self._tools = tools
        self._ask = ask
        self._prepare = prepare
        self._params = params
        self._expansion = expansion
        self._control = control
        self._emit = emit
        self._ledger = ledger
        self._seconds = dict.fromkeys((*STAGES, "total"), 0.0)
        self._peak = 0
        self._images = 0
        self._index = 0  # of the next picture
        self._batches_done = 0
        self._batches = 0  # of the cell in the making
        self._started = False
        self._drafted = False
        self._failed = 0
        self._cells_begun = 0
        self._interrupted = False  # and something is missing for that
        self._batches_resumed = 0  # of cells that an earlier run made
        self._seconds_resuming = 0.0
        self._sample: SavedPicture | None = None  # the latest picture: what a sheet says of models and machine
        self._began = time.perf_counter()

    def run(self) -> None:
        """Ends with `Finished`. A cell that fails is told as a warning, and the others are made all the same."""
        for note in self._expansion.notes:
            self._emit(Warning("extension", note))
        answer: CellResult | None = None
        count = 0
        try:
            while (wanted := self._next(answer)) is not None:
                answer = None
                if isinstance(wanted, Draft):
                    self._show(wanted)
                elif isinstance(wanted, Sheet):
                    self._save_sheet(wanted)
                elif self._control.interrupted:
                    self._interrupted = True
                    answer = INTERRUPTED
                else:
                    if self._params.sources:  # whatever became of the pictures before, it tells whose it is
                        self._index = count * _pictures_of_cell(self._params)
                    count += 1
                    if count > MAX_CELLS:
                        raise InvalidParams(f"More than {MAX_CELLS:,} cells.", "Split the job.")
                    answer = self._make(wanted)
        finally:
            self._expansion.cells.close()
        if self.nothing:
            return
        if not self._interrupted and not self._failed:
            self._ledger.discard()
        self._seconds["total"] = time.perf_counter() - self._began
        self._emit(Finished(self._images, self._seconds, self._peak, self._interrupted))

    @property
    def nothing(self) -> bool:
        """Whether it came to an end without a single cell; then no `Finished` was said."""
        return not self._cells_begun and not self._interrupted

    def _next(self, answer: CellResult | None) -> Wanted:
        """What the extension wants next; None when it is through, or failed."""
        cells = self._expansion.cells

        def step() -> Wanted:
            try:
                return cells.send(answer)
            except StopIteration:
                return None

        return self._ask(step)

    def _without_missing_faces(self, cell: Cell) -> Cell:
        """The cell, less the face restoration that a script alone asks for where no model does any. That is said.

        As in AUTOMATIC1111, where `--restore_faces` in a line of prompts costs no picture.
        """
        faces = cell.params.faces
        if faces is None or faces.model != AUTOMATIC or self._params.faces is not None:
            return cell
        try:
            self._tools.catalog.find_face_restorer(AUTOMATIC)
        except ModelNotFound as error:
            self._emit(Warning("faces", f"Face restoration had no effect: {error}"))
            return dataclasses.replace(cell, params=cell.params.changed(faces=None))
        return cell

    def _make(self, cell: Cell) -> CellResult:
        cell = self._without_missing_faces(cell)
        self._cells_begun += 1
        began = time.perf_counter()
        done = self._ledger.find(cell.params, self._tools.paths.outputs)
        if done is not None:
            answer = self._again(done, cell)
            self._seconds_resuming += time.perf_counter() - began
            return answer
        images: list[Image] = []
        self._batches = cell.params.batch_count
        capture: list[SavedPicture] = []
        tools = dataclasses.replace(self._tools, save_hook=self._noting(capture))
        failure: WebUIError | None = None
        try:
            run_job(tools, self._prepare(cell.params), _Quiet(self._control), self._telling(images, cell))
        except WebUIError as error:
            failure = error.with_traceback(None)
        self._control.batch_done()  # a skip that came while the cell was saved, or failed, is not of the next one
        if failure is not None:  # outside of the except blocks, whose traceback would keep tensors alive
            return self._told_failure(cell, failure)
        self._batches_done += self._batches
        self._sample = capture[-1] if capture else self._sample
        whole = len(images) == cell.params.pictures and not any("Stopped at step" in i.infotext for i in images)
        if whole and all(image.path for image in images):
            self._ledger.add(cell.params, images, self._tools.paths.outputs)
        if not images:
            return INTERRUPTED if self._interrupted else SKIPPED
        return self._result(images)

    def _told_failure(self, cell: Cell, error: WebUIError) -> CellResult:
        give_back(self._tools.device.device)
        self._failed += 1
        self._batches_done += self._batches
        self._emit(Warning("cell", f"{cell.label or 'A cell'}: {error}"))
        return CellResult(error=str(error))

    def _again(self, done: DoneCell, cell: Cell) -> CellResult:
        """A cell that an earlier run of this job made: its pictures are told again."""
        for image in done.images if cell.shown else ():
            self._tell_image(image)
        self._batches_done += cell.params.batch_count
        self._batches_resumed += cell.params.batch_count
        return self._result(done.images, resumed=True)

    def _result(self, images: Sequence[Image], *, resumed: bool = False) -> CellResult:
        """A finished cell, with its pixels where somebody looks at them: of a folder nobody does."""
        pixels = [] if self._params.sources else [_open(image) for image in images]
        return CellResult(pixels, [i.infotext for i in images], [i.path for i in images], resumed=resumed)

    def _telling(self, images: list[Image], cell: Cell) -> Emit:
        """The events of a cell, as those of the whole job."""

        def tell(event: Event) -> None:
            if isinstance(event, Image):
                images.append(event)
                if cell.shown or event.error:
                    self._tell_image(event)
            elif isinstance(event, Started):
                if not self._started:
                    pictures_in_all = self._expansion.pictures or event.pictures
                    self._emit(dataclasses.replace(event, pictures=pictures_in_all))
                self._started = True
            elif isinstance(event, Step):
                self._emit(self._step_of_all(event))
            elif isinstance(event, Finished):
                for stage, seconds in event.seconds.items():
                    self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
                self._peak = max(self._peak, event.peak_memory)
                self._interrupted |= event.interrupted
            elif isinstance(event, Preview) and self._drafted:
                return  # the growing sheet is shown instead
            else:
                self._peak = max(self._peak, event.peak) if isinstance(event, Memory) else self._peak
                self._emit(event)

        return tell

    def _tell_image(self, image: Image) -> None:
        self._emit(dataclasses.replace(image, index=self._index))
        self._index += 1
        self._images += 1

    def _step_of_all(self, step: Step) -> Step:
        batch = self._batches_done + step.batch
        per_batch = max(1, self._params.batch_size)
        batches = max(batch, -(-self._expansion.pictures // per_batch))
        made = self._batches_done + (step.batch - 1 + step.step / max(1, step.steps))
        now_made = made - self._batches_resumed  # what an earlier run made took no time in this one
        passed = time.perf_counter() - self._began - self._seconds_resuming
        left = passed / now_made * (batches - made) if now_made > 0 else step.seconds_left
        return dataclasses.replace(step, batch=batch, batches=batches, seconds_left=left)

    def _show(self, draft: Draft) -> None:
        picture = draft.picture.convert("RGB")
        picture.thumbnail((MAX_DRAFT_SIDE, MAX_DRAFT_SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
        self._drafted = True
        self._emit(Preview(buffer.getvalue(), 0))

    def _save_sheet(self, sheet: Sheet) -> None:
        """A picture of the whole job. Its params are the request, so that a replay makes all of it again."""
        params, sample = self._params, self._sample
        model, model_hash = _checkpoint_of(sample)
        made = MadePicture(
            sheet.picture.convert("RGB"),
            infotext.format(params, model_name=model, model_hash=model_hash, extra=sheet.notes),
            params.seed,
            sample.environment if sample else Environment(product=webui.__version__),
            sample.models if sample else (),
        )
        told = JobExtensions(self._tools.extensions, params, lambda text: self._emit(Warning("extension", text)))
        self._tell_image(keep_picture(self._tools, params, WHOLE_JOB, made, told.saved, folder=GRIDS))

    def _noting(self, capture: list[SavedPicture]) -> SaveHook:
        """The save hook of the whole, which also notes what was saved."""

        def hook(picture: SavedPicture) -> AbstractContextManager[None]:
            capture.append(picture)
            return self._tools.save_hook(picture)

        return hook


def _checkpoint_of(sample: SavedPicture | None) -> tuple[str | None, str | None]:
    """(stem, short hash) of the checkpoint that drew a picture."""
    used = next((m for m in sample.models if m.kind == "checkpoint"), None) if sample else None
    return (Path(used.name).stem, used.sha256[:10] or None) if used else (None, None)


def _open(image: Image) -> PillowImage.Image:
    """The pixels of a finished picture, from its file or, where that could not be written, from memory."""
    return open_own(image.png or Path(image.path), (image.width, image.height)).convert("RGB")
