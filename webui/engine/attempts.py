"""A job, and what happens where memory runs out in it: what was kept is freed, and what is missing is made once more in
a leaner way. Pictures that are finished stay, and the others are the same as they would have been.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from webui.engine.control import Control
from webui.engine.extras import job_for
from webui.engine.job import Job
from webui.engine.memory.residency import MODES
from webui.engine.memory.usage import give_back, is_out_of_memory, out_of_memory
from webui.engine.saving.ledger import same_pixels
from webui.engine.shared import Tools
from webui.events import Event, Image, Warning
from webui.params import GenerationParams
from webui.settings import MemoryMode

_HOW = {
    MemoryMode.normal: "",
    MemoryMode.medvram: ", with one network on the GPU at a time and one picture in it",
    MemoryMode.lowvram: ", with one layer on the GPU at a time and one picture in it",
}

_log = logging.getLogger(__name__)


def run_job(
    tools: Tools,
    params: GenerationParams,
    control: Control,
    emit: Callable[[Event], None],
    made: Sequence[Image] = (),
) -> None:
    """One job, to its `Finished`. Raises the errors of its parts, and `OutOfMemory` when the second try fails, too.

    Of what is `made` of it already, the pictures whose files are what they were are told, and not made again.
    """
    job = job_for(params)(tools, params, control, emit)
    if isinstance(job, Job):
        job.leave_out([image for image in made if same_pixels(image)])
    lack = _lack_of_memory(job.run, control)
    if lack is None:
        return
    residency, kind = tools.residency, tools.device.kind
    mode = MODES[min(MODES.index(residency.mode) + 1, len(MODES) - 1)] if residency.offloads else residency.mode
    what = "The GPU" if kind == "cuda" else "The machine"
    text = (
        f"{what} ran out of memory. What was kept for other jobs was freed, and the rest of this one was made "
        f"again{_HOW[mode] if residency.offloads else ''}."
    )
    _log.warning("%s (%s)", text, lack)
    again = job.again(replace(tools, apart=residency.offloads))
    del job
    free_memory_of(tools)
    emit(Warning("memory", text))
    with residency.at_least(mode, tools.store.networks):
        lack = _lack_of_memory(again.run, control)
    if lack is not None:
        del again
        _log.warning("Out of memory for the second time (%s)", lack)
        free_memory_of(tools)
        raise out_of_memory(kind, again=True)


def free_memory_of(tools: Tools) -> None:
    """Drop everything that is kept but the checkpoint and the VAE in use. No frame may hold a tensor any more."""
    tools.graphs.clear()
    tools.chunks.clear()
    tools.upscalers.networks.clear()
    tools.faces.networks.clear()
    tools.store.drop_others()
    give_back(tools.device.device)


def _lack_of_memory(run: Callable[[], None], control: Control) -> str | None:
    """Do it; None when it came to its end, and what was missing where memory ran out.

    The error ends here, and with its traceback the frames that hold tensors.
    """
    try:
        run()
    except Exception as error:
        if not is_out_of_memory(error) or control.interrupted:
            raise
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return None
