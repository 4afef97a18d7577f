"""Fetching a study of 1000 slices from a DICOMweb server, beside curl: time and memory.

    python dicomweb_fetch.py

A server in a process of its own answers from memory; the slices are CT of 512 × 512 px, 0.5 MB each. limner lists and
fetches them one by one into an empty folder and checks each in its sandboxed process; a second time all are there.
curl gets the same instances, in one process over one connection, and with four at a time as limner does, and checks
nothing. Memory is the most that limner's process holds (resident set) beyond what it held before; its sandboxed process
is the one that reads every study, and is not counted, nor is its processor time. Linux only.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

COUNT, SIDE, ROUNDS = 1000, 512, 3
ROOT = "1.2.826.0.1.3680043.8.498."
STUDY, SERIES = f"{ROOT}1", f"{ROOT}2"

FETCH = """
import sys, time
from pathlib import Path
from limner.readers.dicomweb.fetch import fetch
from limner.readers.dicomweb.options import WebOptions
import limner.readers.dicomweb.server

def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))

Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before, start, used = kilobytes("VmRSS"), time.perf_counter(), time.process_time()
found = fetch(sys.argv[1], WebOptions(web_cache=sys.argv[2]))
seconds, processor = time.perf_counter() - start, time.process_time() - used
assert len(found.files) == int(sys.argv[3]) and not found.failed
print(seconds, processor, (kilobytes("VmHWM") - before) / 1024)
"""


def slice_of(number: int, pixels: bytes) -> bytes:
    """One slice as a file."""
    import io

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = UID(f"{ROOT}{1000 + number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = STUDY, SERIES, "CT"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.Rows, data.Columns, data.SamplesPerPixel = [0.7, 0.7], SIDE, SIDE, 1
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored = "MONOCHROME2", 16, 16
    data.HighBit, data.PixelRepresentation, data.PixelData = 15, 1, pixels
    file = io.BytesIO()
    dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def serve() -> None:
    """Serve the study; prints the port."""
    pixels = np.random.default_rng(7).integers(-1000, 1500, (SIDE, SIDE), dtype=np.int16).tobytes()
    objects = {f"{ROOT}{1000 + number}": slice_of(number, pixels) for number in range(COUNT)}
    names = sorted(objects)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.endswith("/instances"):
                start = int(dict(part.split("=") for part in query.split("&"))["offset"])
                rows = [
                    {"0020000E": {"vr": "UI", "Value": [SERIES]}, "00080018": {"vr": "UI", "Value": [name]}}
                    for name in names[start : start + 1000]
                ]
                self.answer("application/dicom+json", json.dumps(rows).encode())
            else:
                head = b"--bound\r\nContent-Type: application/dicom\r\n\r\n"
                kind = 'multipart/related; type="application/dicom"; boundary=bound'
                self.answer(kind, head, objects[path.rpartition("/")[2]], b"\r\n--bound--\r\n")

        def answer(self, kind: str, *parts: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(sum(map(len, parts))))
            self.end_headers()
            for part in parts:
                self.wfile.write(part)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    say(str(server.server_address[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


def curl(root: str, folder: Path, at_a_time: int) -> tuple[float, float]:
    """Seconds and processor seconds of getting all instances with curl."""
    folder.mkdir()
    path = f"/studies/{STUDY}/series/{SERIES}/instances"
    lines = [f'url = "{root}{path}/{ROOT}{1000 + number}"\noutput = "{folder}/{number}"\n' for number in range(COUNT)]
    (folder / "urls").write_text("".join(lines))
    several = ["--parallel", "--parallel-max", str(at_a_time)] if at_a_time > 1 else []
    command = [str(shutil.which("curl")), "--silent", "--fail", *several, "--config", str(folder / "urls")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # older ones show a meter in spite of --silent
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the table."""
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    root = f"http://127.0.0.1:{server.stdout.readline().strip()}/dicom-web"
    say(f"{COUNT} instances of {SIDE} × {SIDE} px, {COUNT * SIDE * SIDE * 2 / 1e6:.0f} MB\n")
    say("| how | seconds | processor, s | MiB |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(ROUNDS):
            folder = Path(temporary, str(number))
            folder.mkdir()
            for at_a_time in (1, 4) if shutil.which("curl") else ():
                seconds, processor = curl(root, folder / f"curl-{at_a_time}", at_a_time)
                say(f"| curl, {at_a_time} at a time | {seconds:.1f} | {processor:.1f} | |")
            for what in ("limner", "limner, all there"):
                uri = f"dicomweb:{root}/studies/{STUDY}"
                command = [sys.executable, "-c", FETCH, uri, str(folder / "cache"), str(COUNT)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, processor, most = map(float, done.stdout.split())
                say(f"| {what} | {seconds:.1f} | {processor:.1f} | {most:.0f} |")
            shutil.rmtree(folder)
    server.communicate("")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
