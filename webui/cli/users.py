"""`app.py users`: who may sign in. A change is in force at once, also in a server that runs."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from webui.accounts import Accounts, checked_name
from webui.cli.flags import Folders, expanded
from webui.errors import AccountError

users = typer.Typer(
    name="users",
    help="Add and remove the people who may sign in. Once there is one, everybody signs in.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and . _ - @ +")]


@users.command("list")
@expanded()
def list_users(folders: Folders) -> None:
    """List the users, one line each."""
    for account in Accounts(folders.paths().users_file).list():
        role, tokens = ("admin" if account.admin else "user"), len(account.tokens)
        print(f"{account.name}\t{role}\t{tokens} API token{'' if tokens == 1 else 's'}")


@users.command()
@expanded()
def add(
    name: Name,
    folders: Folders,
    admin: Annotated[
        bool, typer.Option("--admin", help="May change settings and models, and see everybody's jobs.")
    ] = False,
) -> None:
    """Add a user, or give one another password and role. The password is asked for, or read from standard input."""
    checked_name(name)
    Accounts(folders.paths().users_file).add(name, _password(), admin=admin)
    print(f"{name} may sign in now.")


@users.command()
@expanded()
def remove(name: Name, folders: Folders) -> None:
    """Remove a user, and end their sessions and tokens. Jobs and pictures stay, for administrators to see."""
    Accounts(folders.paths().users_file).remove(name)
    print(f"{name} is removed.")


@users.command()
@expanded()
def token(
    name: Name,
    folders: Folders,
    revoke: Annotated[bool, typer.Option("--revoke", help="End all of the user's tokens instead.")] = False,
) -> None:
    """Make a token for programs: `Authorization: Bearer TOKEN`. It is shown once."""
    accounts = Accounts(folders.paths().users_file)
    if revoke:
        print(f"{accounts.revoke_tokens(name)} ended.")
    else:
        print(accounts.new_token(name))


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise AccountError("The two passwords differ.", "Try again.")
    return first
