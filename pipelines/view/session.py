"""Opens a run for looking: its record, its index, its pictures, and the server."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..progress import EventHandler, Message
from ..review.review import Review
from ..run.manifest import load_manifest
from ..run.plan import ImagePlan
from ..run.reporting import read_record
from ..run.watching import Watcher
from .api import Api
from .index import open_index
from .pictures import Pictures, live_picture
from .server import ViewServer

ENDED = "The server has ended. The run and its index stay as they are: give the same command to look again."

_CHECKED = 50  # images whose files are compared with those that the run read, before a page is opened


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Who reviews, and where."""

    name: str
    folder: Path | None = None
    """Of the reviews; by default beside the run."""


@contextmanager
def open_view(
    run: Path, *, port: int = 0, reviewer: Reviewer | None = None, on_event: EventHandler = lambda _: None
) -> Generator[ViewServer]:
    """A server of the run in a folder, which answers once it serves; without a reviewer nothing can be decided.

    Raises `RequestError` where there is no run, the port is taken, or another process has the review open;
    `StoreError` where the run or the review is damaged.
    """
    manifest = load_manifest(run)
    plans = [ImagePlan.from_json(image) for image in manifest["images"]]
    made = manifest["versions"]["limner"]
    if made != version("limner"):
        on_event(Message(f"limner {made} made this run, and this is {version('limner')}: numbers are those of the run"))
    watched = Watcher(run).read()
    if watched.state != "ended" and watched.done < watched.total:
        on_event(
            Message(
                f"The run is not complete: {watched.done} of {watched.total} regions are done, and these are shown. "
                "Give the command again for later ones"
            )
        )
    record = read_record(run)
    live = {plan.info.id: live_picture(plan) for plan in plans}
    with ExitStack() as stack:
        index = stack.enter_context(open_index(run, record, live, on_event))
        pictures = Pictures(plans, record.images, index)
        stack.callback(pictures.close)
        pictures.start()
        gone = [plan.info.id for number, plan in enumerate(plans[:_CHECKED]) if pictures.status(number)]
        if gone:
            named = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
            on_event(Message(f"Without pixels of its own file: {named}. The page says why"))
        review = None
        if reviewer is not None:
            review = stack.enter_context(Review.open(run, reviewer.name, reviewer.folder, record=record))
            for notice in review.notices:
                on_event(Message(notice))
        server = ViewServer(Api(record, index, pictures, live, review), port)
        stack.callback(server.server_close)
        yield server
