"""What a user does on the page, in words that the tests share. Waits compare job ids, so none passes on an old job."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SLOW = {"width": 256, "height": 256}  # four times the work a step: time to look at a running job
OVER = ("done", "interrupted", "failed", "cancelled", "lost")


def wait_for(page: Any, condition: str, arg: Any = None, *, timeout: float | None = None) -> Any:
    """Wait until a script says yes; what it said. Asked twenty times a second: to be asked in each frame, which is
    Playwright's way, takes a tenth of a core from what is waited for.
    """
    return page.wait_for_function(condition, arg=arg, timeout=timeout, polling=50)


def job_of(page: Any) -> str | None:
    """The id of the job on the stage."""
    found = page.evaluate("latent.stage.view?.id ?? null")
    return str(found) if found else None


def set_values(page: Any, **values: Any) -> None:
    page.evaluate("values => latent.form.set(values)", values)
    for name, value in values.items():
        wait_for(page, "([n, v]) => latent.form.values[n] === v", arg=[name, value])


def generate(page: Any, act: Callable[[], None] | None = None) -> str:
    """Press Generate (or `act`); the new job's id."""
    before = page.evaluate("latent.stage.mine.concat(latent.stage.view?.id ?? [])")
    if act is None:
        page.get_by_role("button", name="Generate", exact=True).click()
    else:
        act()
    wait_for(page, "before => { const id = latent.stage.view?.id; return id && !before.includes(id); }", arg=before)
    job = job_of(page)
    assert job is not None
    assert job not in before
    return job


def wait_for_step(page: Any, job: str, step: int = 2) -> None:
    wait_for(
        page,
        "([id, step]) => latent.stage.view?.id === id && latent.stage.view.state === 'running' "
        "&& latent.stage.view.step >= step",
        arg=[job, step],
    )


def wait_for_end(page: Any, job: str, state: str = "done") -> dict[str, Any]:
    """Wait until this job is over on the page; its view."""
    wait_for(
        page,
        "([id, over]) => latent.stage.view?.id === id && over.includes(latent.stage.view.state)",
        arg=[job, list(OVER)],
    )
    view: dict[str, Any] = page.evaluate("latent.stage.view")
    assert view["state"] == state, view
    return view


def shown_picture(page: Any) -> str:
    """The address of the finished picture on the stage, once it is painted."""
    wait_for(
        page,
        "() => { const i = document.querySelector('#stage img[data-part=image]');"
        " return !i.hidden && i.dataset.kind === 'result' && i.src.includes('/outputs/') && i.complete; }",
    )
    return str(page.evaluate("document.querySelector('#stage img[data-part=image]').src"))


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition outside the page."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


class Late:
    """Answers that come late: each is the server's at its time, and is held back until `come`. `first`: only so many;
    `wanted`: only of requests whose body has this."""

    def __init__(self, page: Any, address: Any, *, first: int = 1000, wanted: str = "", method: str = "") -> None:
        self._page, self._first, self._wanted, self._method = page, first, wanted, method
        self.held: list[tuple[Any, Any]] = []
        page.route(address, self._hold)

    def _hold(self, route: Any) -> None:
        request = route.request
        wanted = self._wanted in (request.post_data or "") and self._method in ("", request.method)
        if wanted and len(self.held) < self._first:
            self.held.append((route, route.fetch()))
        else:
            route.fallback()

    def wait(self, count: int = 1) -> None:
        """Wait until so many are held."""
        until(lambda: self._page.wait_for_timeout(10) or len(self.held) >= count)

    def come(self) -> None:
        """Let them come, and what they do be done. What is asked for from now on is not late."""
        self._first = 0
        for route, answer in self.held:
            with self._page.expect_response(lambda response, asked=route.request: response.request == asked):
                route.fulfill(response=answer)
        frames(self._page)


def frames(page: Any, count: int = 6) -> None:
    """Let so many frames be drawn: what an answer does is done a few tasks after it has come."""
    page.evaluate("async n => { for (; n; n--) await new Promise(requestAnimationFrame); }", count)


def focused(page: Any) -> str:
    """What the control with the focus is called."""
    return str(page.evaluate("(node => node.getAttribute('aria-label') || node.textContent)(document.activeElement)"))


def press(page: Any, place: Any, meanwhile: Callable[[], None]) -> None:
    """A click during which something happens."""
    place.hover()
    page.mouse.down()
    meanwhile()
    page.mouse.up()


def ready(page: Any) -> Any:
    """Wait until the page can be used."""
    wait_for(page, "document.documentElement?.dataset.ready === 'true' && latent.form.ready")
    return page


def settled_box(page: Any, selector: str) -> dict[str, float]:
    """Where an element is in the document once it has not moved for twenty frames."""
    box: dict[str, float] = page.evaluate(
        """(selector) => new Promise((done) => {
          let last = "", still = 0;
          const look = () => {
            const box = document.querySelector(selector).getBoundingClientRect();
            const at = { x: box.x, y: box.y + scrollY, width: box.width, height: box.height };
            const now = Object.values(at).join();
            still = now === last ? still + 1 : 0;
            last = now;
            if (still === 20) done(at); else requestAnimationFrame(look);
          };
          look();
        })""",
        selector,
    )
    return box
