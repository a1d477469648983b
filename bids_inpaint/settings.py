"""Every option of a run, validated once."""

from __future__ import annotations

import math
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_inpaint import resources
from bids_inpaint.dataset import template
from bids_inpaint.errors import InputError, is_utf8, printable
from bids_inpaint.networks import registry
from bids_inpaint.networks.diffusion import check_steps
from bids_inpaint.spm.program import Spm
from bids_inpaint.spm.program import find as find_spm

#: Options that are paths.
_PATHS = (
    "bids_dir", "output_dir", "work_dir", "bids_filter_file", "bids_database_dir", "use_plugin",
    "lesion_masks", "spm12",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Options of a run of the participant level.

    Attributes mirror the command line (see ``bids_inpaint --help``).

    Raises
    ------
    InputError
        On construction, if values contradict each other or the world: one sentence for the user.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path = Path("work")
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    derivatives: dict[str, Path] = field(default_factory=dict)
    skip_bids_validation: bool = False
    clean_workdir: bool = False
    nprocs: int = field(default_factory=resources.cpus)
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    use_plugin: Path | None = None
    device: str = "auto"
    model: str = registry.DEFAULT
    second_pass: str = registry.REFERENCE
    sampler: str | None = None
    sampling_steps: int | None = None
    fill: str = "lesions"
    lesion_threshold: float | None = None
    lesion_min_volume: float = 10.0
    lesion_masks: Path | None = None
    flair: str | None = None
    segmentation: str = "atropos"
    compare_segmentation: bool = False
    spm12: Path | None = None
    template: str = template.DEFAULT
    skull_strip: str = "auto"
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    stop_on_first_crash: bool = False
    strict: bool = False
    random_seed: int = 0
    sloppy: bool = False
    verbose: int = 0

    def __post_init__(self):
        self._check_names()
        # steps run in folders of their own
        for name in _PATHS:
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, _absolute(path))
        derivatives = {name: _absolute(path) for name, path in self.derivatives.items()}
        object.__setattr__(self, "derivatives", derivatives)
        for name in ("model", "second_pass", "flair"):
            # shipped ones are known by name
            network = getattr(self, name)
            if network not in (None, "none", *registry.shipped()) and _absolute(network).is_file():
                object.__setattr__(self, name, str(_absolute(network)))
        if not self.bids_dir.is_dir():
            raise InputError(f"{self.bids_dir} is not a folder: give the root of a BIDS dataset.")
        inside = self.bids_dir.resolve()
        for name, path in (("Output", self.output_dir), ("Work", self.work_dir)):
            resolved = path.resolve()
            allowed = inside / "derivatives"
            if resolved.is_relative_to(inside) and (
                resolved == allowed or not resolved.is_relative_to(allowed)
            ):
                remedy = (
                    "name one outside it with -w"
                    if name == "Work"
                    else f"choose one outside it, or in {self.bids_dir / 'derivatives' / 'bids_inpaint'}"
                )
                raise InputError(f"{name} folder {path} lies inside the dataset {self.bids_dir}: {remedy}.")
        for name, path in (("Output", self.output_dir), ("Work", self.work_dir)):
            check_writable(name, path)
        for name, path in self.derivatives.items():
            if not Path(path).is_dir():
                raise InputError(f"-d {name}={path}: {path} is not a folder: check the path.")
        if self.lesion_masks and not self.lesion_masks.is_dir():
            raise InputError(
                f"--lesion-masks {self.lesion_masks} is not a folder: give a BIDS derivative with masks."
            )
        if self.segmentation == "none" and self.compare_segmentation:
            raise InputError("--compare-segmentation needs a segmentation: leave out --segmentation none.")
        if self.segmentation != "spm12" and self.spm12:
            raise InputError(
                "--spm12 is for --segmentation spm12 alone: add --segmentation spm12, or leave --spm12 out."
            )
        threshold = self.lesion_threshold
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(
                f"--lesion-threshold {threshold} is out of range: it is a fraction of "
                "normal-appearing white matter between 0 and 1."
            )
        if not 0 <= self.lesion_min_volume < math.inf:
            raise InputError(
                f"--lesion-min-volume {self.lesion_min_volume} is out of range: it is a volume in mm³ of at "
                "least 0."
            )
        if self.sampling_steps is not None:
            check_steps(self.sampling_steps)
        for name in ("nprocs", "omp_nthreads", "mem_gb"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{name.replace('_', '-')} must be a positive number, not {value}.")

    def _check_names(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            for one in value.values() if isinstance(value, dict) else (value,):
                if isinstance(one, (str, Path)) and ("\n" in str(one) or not is_utf8(str(one))):
                    raise InputError(
                        f"{printable(str(one))} ({_option(option.name)}) isn't UTF-8 or has a line break: "
                        "rename it, or give a link to it."
                    )

    @cached_property
    def spm(self) -> Spm | None:
        """The SPM12 to segment with, if it is asked for."""
        return find_spm(self.spm12) if self.segmentation == "spm12" else None

    def threads(self, images: int) -> int:
        """Threads of one step: those asked for, or what each of so many images has for itself, at most 8.

        Two images at a time with a thread each are done sooner than one after the other with two. Those asked
        for may be more than this machine has where the steps run on others.
        """
        if self.omp_nthreads and self.use_plugin:
            return self.omp_nthreads
        return min(self.omp_nthreads or min(max(self.nprocs // images, 1), 8), self.nprocs)

    def summary(self) -> dict[str, Any]:
        """The options as text, for reports and logs."""
        shown = {}
        for key in (f.name for f in fields(self)):
            value = getattr(self, key)
            if value in (None, (), {}, False) or key in ("verbose",):
                continue
            shown[key] = (
                ", ".join(f"{k}={v}" for k, v in value.items())
                if isinstance(value, dict)
                else ", ".join(map(str, value))
                if isinstance(value, tuple)
                else str(value)
            )
        return shown


def _option(name: str) -> str:
    """How the command line calls an option, or what stands without one."""
    if name in ("bids_dir", "output_dir"):
        return {"bids_dir": "the dataset", "output_dir": "the output folder"}[name]
    return f"--{name.replace('_', '-')}"


def _absolute(path: str | os.PathLike) -> Path:
    absolute = Path(os.path.expanduser(path)).absolute()
    # behind a link, what is above isn't what the name says
    return absolute.resolve() if ".." in absolute.parts else absolute


def check_writable(name: str, path: Path) -> None:
    """Make a folder and write into it, or raise `InputError`."""
    probe = path / f".write-test-{uuid.uuid4().hex}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"bids_inpaint" * 1000)
    except OSError as error:
        raise InputError(
            f"{name} folder {path} can't be written ({error.strerror}): "
            "check its permissions and the space on its disk, or name another folder."
        ) from None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
