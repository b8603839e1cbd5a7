"""One ASGI app on one port: a start page at once, then the Gradio page, the native API and the pictures.

`serve` and `ServeOptions` are all that the command line needs. Importing this package imports neither gradio nor
fastapi; that happens in a background thread while the start page already answers.
"""

from webui.server.boot import serve
from webui.server.options import ServeOptions

__all__ = ["ServeOptions", "serve"]
