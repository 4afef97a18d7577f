"""Read everything in a folder of hostile cases, one process for all; report the cost of each. Run: attack.py FOLDER.

Prints a JSON list of [case, outcome, peak MB of this process so far, peak MB of its limited processes so far].
"""

import json
import re
import resource
import sys
from pathlib import Path

from limner.readers.contract import scan_with
from limner.readers.dicom.decoder import Decoder
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import LimnerError


def attack(path: Path) -> str:
    """The outcome of one file: its images read as a whole, or the error."""
    reader = DicomReader()
    try:
        infos = scan_with(reader, str(path), {})
        for info in infos:
            with reader.open(info) as image:
                image.read(info.box, (32, 32))
    except LimnerError as error:
        return str(error)
    return f"{len(infos)} read" + "".join(f"; {note}" for info in infos for note in info.notes if "archive" in note)


def peak() -> int:
    """Peak resident memory of this process in MB; a process that has just begun does not count its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="ascii"))[0]) // 1024


if __name__ == "__main__":
    rows: list[tuple[str, str, int, int]] = []
    for case in sorted(Path(sys.argv[1]).iterdir()):
        outcome = attack(next(case.iterdir()))
        Decoder().close()  # so that its memory is counted
        theirs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        rows.append((case.name, outcome, peak(), theirs))
    json.dump(rows, sys.stdout)
