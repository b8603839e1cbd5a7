"""Who asks: the one answer that the page, the API and the queue act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Viewer:
    """`name` owns the jobs and pictures they make; an administrator sees and steers everybody's."""

    name: str = ""
    admin: bool = False

    @property
    def scope(self) -> str | None:
        """Whose jobs and pictures they see; None: everybody's."""
        return None if self.admin else self.name

    def owns(self, user: str) -> bool:
        """Whether what belongs to `user` is theirs to see and steer."""
        return self.admin or user == self.name


OWNER = Viewer("", admin=True)  # whoever sits at this machine, as long as there are no accounts
NOBODY = Viewer("<nobody>", admin=False)  # whoever opens a link to a shared picture; no account can have that name
