"""The history: every picture ever made, found again, understood, and made again bit for bit. No torch.

`store.History` is the one way in for the page, the API and the command line; `recorder.Recorder` is what the process
that saves pictures holds. Both work on `outputs/history.sqlite`.
"""

from webui.history.recorder import Recorder
from webui.history.store import History

__all__ = ["History", "Recorder"]
