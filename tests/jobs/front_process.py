"""A front in a process of its own, for tests that kill it. Arguments: data folder, prompt."""

import signal
import sys
import time
from pathlib import Path

from job_bench import submit
from job_engines import PlainCatalog, scripted

from webui.jobs.service import JobService
from webui.paths import Paths
from webui.settings import Settings

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    service = JobService(Settings(), Paths.under(Path(sys.argv[1])), PlainCatalog(), factory=scripted)
    service.start()
    job = submit(service, sys.argv[2], steps=200)
    while True:
        view = service.view(job)
        if view is not None and view["step"]:
            break
        time.sleep(0.01)
    try:
        print(service._supervisor.pid, flush=True)
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        service.stop()
        print(service._running, flush=True)
