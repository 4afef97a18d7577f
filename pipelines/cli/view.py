"""The command that shows a run in a browser."""

import getpass
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .settings_options import add_command
from .terminal import Stopped, print_message, print_result


def account_name() -> str:
    """The name of the user's account, as far as it can name a file; "reviewer" where it cannot."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # what it raises without an account differs by version
        name = ""
    return re.sub(r"[^\w.@-]", "", name)[:64].strip(".") or "reviewer"


def add_view(app: typer.Typer) -> None:
    """Add the command."""

    @add_command(app, "view")
    def view_command(  # pyright: ignore[reportUnusedFunction] - typer calls it
        run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
        *,
        port: Annotated[
            int, typer.Option("--port", min=0, max=65535, help="Port on this machine. Default: any free one.")
        ] = 0,
        reviewer: Annotated[
            str, typer.Option("--reviewer", metavar="NAME", help="Your name in the review. Default: your account's.")
        ] = "",
        reviews: Annotated[
            str, typer.Option("--reviews", metavar="FOLDER", help="Folder of reviews. Default: RUN.reviews.")
        ] = "",
        read_only: Annotated[bool, typer.Option("--read-only", help="Show the run; decide nothing.")] = False,
        no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")] = False,
    ) -> None:
        """Show a run in the browser, with pixels read from its images, and review it; on this machine only."""
        from ..progress import TerminalProgress
        from ..view.session import ENDED, Reviewer, open_view

        folder = Path(reviews) if reviews else None
        who = None if read_only else Reviewer(reviewer or account_name(), folder)
        try:
            with ExitStack() as stack:
                with TerminalProgress() as progress:
                    server = stack.enter_context(
                        open_view(Path(run_folder), port=port, reviewer=who, on_event=progress)
                    )
                print_result(server.address)
                print_message("Open this address in a browser on this machine. Ctrl-C ends the server.")
                if not no_browser:
                    typer.launch(server.address)
                server.serve_forever(poll_interval=0.2)
        except Stopped as stop:
            print_message(f"\n{ENDED}")
            raise typer.Exit(stop.exit_code) from None
