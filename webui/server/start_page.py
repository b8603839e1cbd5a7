"""The two pages of our own that need no framework: the start page while the interface loads, and signing in.

Both carry the product's one stylesheet inside, so they look like what follows and need no second request.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape

from webui.server.frontend import needed_assets
from webui.ui.markup import STATIC, static_version

STYLE_FILE = STATIC / "style.css"

MARK = (
    '<svg class="mark" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">'
    '<rect x="3" y="3" width="18" height="18" rx="5" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<circle cx="12" cy="12" r="4" fill="currentColor"/></svg>'
)

_START_SCRIPT = """
const list = document.getElementById("steps"), note = document.getElementById("note");
function show(data) {
  list.replaceChildren(...data.steps.map((step) => {
    const item = document.createElement("li");
    item.className = step.state;
    item.textContent = step.name;
    const detail = document.createElement("span");
    detail.textContent = step.detail;
    item.append(detail);
    return item;
  }));
  if (data.error) { note.textContent = data.error; note.className = "bad"; }
}
async function poll() {
  try {
    const data = await (await fetch("start.json", { cache: "no-store" })).json();
    if (data.ready) { location.reload(); return; }
    show(data);
    setTimeout(poll, data.error ? 5000 : 250);
  } catch {
    note.textContent = "The server does not answer. Trying again.";
    setTimeout(poll, 1000);
  }
}
poll();
"""


@lru_cache(maxsize=1)
def _style() -> str:
    return STYLE_FILE.read_text(encoding="utf-8").replace("</", "<\\/")


def _page(title: str, body: str, theme: str = "system", script: str = "", head: str = "") -> str:
    data_theme = f' data-theme="{escape(theme)}"' if theme in ("light", "dark") else ""
    return (
        f'<!doctype html><html lang="en"{data_theme}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style>{head}</head>"
        f'<body class="small-page"><main>{body}</main><script>{script}</script></body></html>'
    )


def page_files() -> tuple[str, ...]:
    """The addresses of files that the full page asks for and that are there already."""
    return (f"ui/style.css?v={static_version()}", *(f"assets/{name}" for name in needed_assets()))


def start_page(theme: str = "system") -> str:
    """What the address answers until the full page is ready; polls `start.json` and reloads into it.

    Meanwhile the browser fetches what the full page will need.
    """
    head = "".join(f'<link rel="prefetch" href="{address}">' for address in page_files())
    body = (
        f"<h1>{MARK}Latent WebUI</h1>"
        '<p id="note" role="status">Starting. The page opens by itself.</p>'
        '<ol id="steps" class="steps"></ol>'
    )
    return _page("Starting · Latent WebUI", body, theme, _START_SCRIPT, head)


def sign_in_page(problem: str = "", theme: str = "system", *, accounts: bool = False, up: str = "") -> str:
    """Asks for name and password, or where there are no accounts for the access token. `up` leads to the top."""
    if accounts:
        fields = (
            '<label for="user">Name</label>'
            '<input id="user" name="user" autocomplete="username" autocapitalize="none" spellcheck="false" autofocus'
            " required>"
            '<label for="password">Password</label>'
            '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        )
        words = "Sign in with the name and password that you were given."
    else:
        fields = (
            '<label for="token">Access token</label>'
            '<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>'
        )
        words = (
            "Open the link that the server printed, or scan its QR code: it signs this browser in. "
            "If it was started with an access token, enter that here."
        )
    body = (
        f"<h1>{MARK}Latent WebUI</h1><p>{words}</p>"
        f'<form method="post" action="{up}sign-in">{fields}'
        f'<p class="bad" role="alert">{escape(problem)}</p>'
        '<button class="primary" type="submit">Sign in</button></form>'
    )
    return _page("Sign in · Latent WebUI", body, theme)


def link_page(token: str, query: str, theme: str = "system") -> str:
    """What a one-time link opens: sends its token on by itself, so that looking at the link does not use it up."""
    body = (
        f"<h1>{MARK}Latent WebUI</h1><p>This link signs this browser in.</p>"
        '<form method="post" action="sign-in">'
        f'<input type="hidden" name="token" value="{escape(token)}">'
        f'<input type="hidden" name="query" value="{escape(query)}">'
        '<button class="primary" type="submit">Sign in</button></form>'
    )
    return _page("Sign in · Latent WebUI", body, theme, "document.forms[0].submit();")
