"""The fixtures of the faces (page, API, server)."""

from faces import face_paths, fake_jobs, full_app, web

__all__ = ["face_paths", "fake_jobs", "full_app", "web"]
