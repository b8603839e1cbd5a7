"""AUTOMATIC1111's REST routes, /sdapi/v1, so that what was written for it works here without a change.

A request becomes `GenerationParams` and an ordinary job; it waits for the job's end and answers as that program does.
What differs is named in docs/api.md: an unknown name is refused with near matches instead of being replaced by
another, and options of a request never outlive it.
"""

from webui.api.sdapi.routes import sdapi_routes

__all__ = ["sdapi_routes"]
