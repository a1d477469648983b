"""How far a run is: a line that renews itself on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from bids_inpaint.dataset.people import is_image
from bids_inpaint.errors import printable


def tell(text: str) -> None:
    """Say something to the user on the terminal, in a line of its own."""
    print(printable(f"bids_inpaint: {text}"), file=sys.stderr)


class Progress:
    """Counts steps and images as Nipype reports them.

    Parameters
    ----------
    images : int
        Their number in all.
    stream : file, optional
        Where to write; standard error by default.
    """

    def __init__(self, images: int, stream: TextIO | None = None):
        self.images = images
        self.steps: dict[str, int] = {}
        self.left: dict[str, int] = {}
        self.stream = stream or sys.stderr
        self.start = time.monotonic()
        self.done = self.cached = 0
        #: Names of the workflows of images of which a step was begun, and of which one failed.
        self.begun: set[str] = set()
        self.failed: set[str] = set()
        self._starts: dict[str, float] = {}
        self._crashed: set[str] = set()

    def expect(self, steps: dict[str, int]) -> None:
        """Take the number of steps of some images, by the name of their workflow; others count alike."""
        self.steps |= steps
        self.left |= steps

    def __call__(self, node, status: str) -> None:
        """Nipype's status callback."""
        # bids_inpaint_wf.IMAGE.STEP_wf.NODE
        parts = node.fullname.split(".")
        image = next((p for p in parts if p in self.left), None)
        if image is None:
            return
        self.begun.add(image)
        if status == "start":
            self._starts[node.fullname] = time.monotonic()
            return
        took = time.monotonic() - self._starts.get(node.fullname, time.monotonic())
        if status == "exception":
            self.failed.add(image)
            self._crashed.add(node.fullname)
            self._line(f"{image}: {parts[-1]} failed")
        elif status == "end" and node.fullname not in self._crashed:
            # Nipype also says so of a step that failed in its own process
            self.done += 1
            self.cached += took < 0.5
            self.left[image] -= 1
            self._line(f"{image}: {parts[-1]} done in {took:.0f} s" if took >= 0.5 else "")
            if not self.left[image] and is_image(image):
                self._line(f"{image}: finished")

    def _line(self, event: str) -> None:
        of_images = [steps for name, steps in self.steps.items() if is_image(name)]
        shared = sum(self.steps.values()) - sum(of_images)
        total = round(sum(of_images) / len(of_images) * self.images) + shared
        finished = sum(not n for name, n in self.left.items() if is_image(name))
        counts = f"{self.done}/{total} steps, {finished}/{self.images} images"
        text = f"[{counts}{self._time_left(total)}] {event}"
        if self.stream.isatty():
            self.stream.write(f"\r\033[K{text}")
        elif event:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _time_left(self, total: int) -> str:
        worked = self.done - self.cached
        if worked < 5:
            return ""
        seconds = (time.monotonic() - self.start) / worked * (total - self.done)
        return f", about {seconds / 60:.0f} min left" if seconds >= 60 else f", about {seconds:.0f} s left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        # ends the renewing line
        if self.stream.isatty():
            self.stream.write("\n")
            self.stream.flush()
