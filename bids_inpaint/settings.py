"""The options of a run as one object, its check, and the file that a run leaves of it."""

from __future__ import annotations

import math
import os
import tomllib
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from bids_inpaint import __version__, options, resources
from bids_inpaint.errors import InputError, is_utf8, printable
from bids_inpaint.io.files import replacing, to_toml
from bids_inpaint.models import shipped
from bids_inpaint.spm.program import Spm
from bids_inpaint.spm.program import find as find_spm

#: Options that are paths.
_PATHS = (
    "bids_dir", "output_dir", "work_dir", "bids_filter_file", "bids_database_dir", "use_plugin",
    "lesion_masks", "edits", "spm12", "export_dir",
)  # fmt: skip
#: Options that name a network, or its file.
_NETWORKS = ("model", "second_pass", "flair")


@dataclass(frozen=True)
class Settings:
    """Options of a run, of either level.

    Attributes mirror the command line (see ``bids_inpaint --help``); paths become absolute. Nothing is
    written, and folders need not be there: that is for :func:`check`.

    Raises
    ------
    InputError
        On construction, if a value can't be used or contradicts another: one sentence for the user.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path = Path(options.WORK_DIR)
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
    device: options.Device = options.DEVICES[0]
    model: str = options.MODEL
    second_pass: str = options.SECOND_PASS
    sampler: options.Sampler | None = None
    sampling_steps: int | None = None
    fill: options.Fill = options.FILLS[0]
    tta: bool = False
    lesion_map: options.LesionMap | None = None
    lesion_threshold: float | None = None
    lesion_min_volume: float = options.LESION_MIN_VOLUME
    lesion_masks: Path | None = None
    edits: Path | None = None
    ratings: tuple[Path, ...] = ()
    flair: str | None = None
    segmentation: options.Segmentation = options.SEGMENTATIONS[0]
    compare_segmentation: bool = False
    spm12: Path | None = None
    template: str = options.TEMPLATE
    skull_strip: options.SkullStrip = options.SKULL_STRIP[0]
    bias_correction: options.BiasCorrection = options.BIAS_CORRECTIONS[0]
    longitudinal: options.Longitudinal | None = None
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    stop_on_first_crash: bool = False
    strict: bool = False
    random_seed: int = options.RANDOM_SEED
    sloppy: bool = False
    export_dir: Path | None = None
    export_files: options.ExportFiles = options.EXPORT_FILES[0]
    unzipped: bool = False
    lesion_rois: bool = False
    include_warned: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        _check_names(self)
        self._make_absolute()
        _check_choices(self)
        _check_numbers(self)
        if self.segmentation == "none" and self.compare_segmentation:
            raise InputError("--compare-segmentation needs a segmentation: leave out --segmentation none.")
        if self.edits and self.longitudinal:
            raise InputError(
                "--longitudinal and --edits can't be used together, as an edit is of one visit, and "
                "lesions are those of all: leave one of them out."
            )
        if self.edits and self.fill != "lesions":
            raise InputError(
                "--edits needs --fill lesions, as all that is no lesion stays as it is: leave out --fill."
            )
        if self.segmentation != "spm12" and self.spm12:
            raise InputError(
                "--spm12 is for --segmentation spm12 alone: add --segmentation spm12, or leave --spm12 out."
            )

    def _make_absolute(self) -> None:
        """Steps run in folders of their own."""
        for name in _PATHS:
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, _absolute(path))
        derivatives = {name: _absolute(path) for name, path in self.derivatives.items()}
        object.__setattr__(self, "derivatives", derivatives)
        object.__setattr__(self, "ratings", tuple(map(_absolute, self.ratings)))
        # shipped networks are known by name, whatever files are called
        for name in _NETWORKS:
            network = getattr(self, name)
            known = network in (None, options.NO_SECOND_PASS, *shipped())
            if not known and _absolute(network).is_file():
                object.__setattr__(self, name, str(_absolute(network)))

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

    def summary(self) -> dict[str, str]:
        """The options as text, for reports and logs."""
        summary = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if value in (None, (), {}, False) or option.name == "verbose":
                continue
            if isinstance(value, dict):
                value = ", ".join(f"{name}={path}" for name, path in value.items())
            elif isinstance(value, tuple):
                value = ", ".join(map(str, value))
            summary[option.name] = str(value)
        return summary

    def save(self, level: options.Level, run_uuid: str) -> Path:
        """Write ``logs/RUN_UUID/settings.toml`` into the output folder, for whoever asks later.

        Parameters
        ----------
        level : {'participant', 'group'}
        run_uuid : str
            The same as in the status files of the images.
        """
        path = self.output_dir / "logs" / run_uuid / "settings.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        run = {"version": __version__, "analysis_level": level, "run_uuid": run_uuid}
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        # TOML has no None: what is missing was not asked for
        lines = [f"{name} = {to_toml(value)}\n" for name, value in values.items() if value is not None]
        with replacing(path) as part:
            part.write_text(
                "".join(f"{name} = {to_toml(value)}\n" for name, value in run.items())
                + "\n[settings]\n"
                + "".join(lines),
                encoding="utf-8",
            )
        return path

    @classmethod
    def load(cls, path: Path) -> Settings:
        """The settings that :meth:`save` wrote."""
        values = tomllib.loads(path.read_text(encoding="utf-8"))["settings"]
        for name in ("participant_label", "session_label", "ratings"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def check(settings: Settings) -> None:
    """Check settings against the machine, and make the output and the work folder.

    Raises
    ------
    InputError
        If a folder is missing, lies where it must not, or can't be written: one sentence for the user.
    """
    if not settings.bids_dir.is_dir():
        raise InputError(f"{settings.bids_dir} is not a folder: give the root of a BIDS dataset.")
    folders = {"Output": settings.output_dir, "Work": settings.work_dir}
    for name, path in folders.items():
        _check_outside(name, path, settings.bids_dir)
    for name, path in folders.items():
        check_writable(name, path)
    for name, path in settings.derivatives.items():
        if not path.is_dir():
            raise InputError(f"-d {name}={path}: {path} is not a folder: check the path.")
    for option, folder in (("--lesion-masks", settings.lesion_masks), ("--edits", settings.edits)):
        if folder and not folder.is_dir():
            raise InputError(f"{option} {folder} is not a folder: give a BIDS derivative with masks.")
    for path in settings.ratings:
        if not path.is_file():
            raise InputError(f"--ratings {path} is not a file: give a table that the reports saved.")


def check_export(settings: Settings) -> None:
    """Check the settings of the export level, and make its folder; nothing else is written.

    Raises
    ------
    InputError
        As :func:`check`.
    """
    folder = settings.export_dir
    if folder is None:
        raise InputError("The export level needs a folder to write to: name a new one with --export-dir.")
    for what, path in (
        ("the root of a BIDS dataset", settings.bids_dir),
        ("the results", settings.output_dir),
    ):
        if not path.is_dir():
            raise InputError(f"{path} is not a folder: give {what}.")
    dataset, results, export = (path.resolve() for path in (settings.bids_dir, settings.output_dir, folder))
    for outer, inner in ((dataset, export), (results, export), (export, dataset), (export, results)):
        # what is in a dataset's derivatives is a dataset of its own
        if inner.is_relative_to(outer) and not inner.is_relative_to(dataset / "derivatives" / inner.name):
            raise InputError(
                f"Export folder {folder} lies in the dataset or the results, or around them: choose one "
                "beside them with --export-dir."
            )
    check_writable("Export", folder)


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


def _check_outside(name: str, path: Path, bids_dir: Path) -> None:
    """Refuse a folder inside the dataset, but for those in its derivatives."""
    dataset, resolved = bids_dir.resolve(), path.resolve()
    allowed = dataset / "derivatives"
    if not resolved.is_relative_to(dataset) or (resolved != allowed and resolved.is_relative_to(allowed)):
        return
    remedy = (
        "name one outside it with -w"
        if name == "Work"
        else f"choose one outside it, or in {bids_dir / 'derivatives' / 'bids_inpaint'}"
    )
    raise InputError(f"{name} folder {path} lies inside the dataset {bids_dir}: {remedy}.")


def _check_names(settings: Settings) -> None:
    for option in fields(settings):
        value = getattr(settings, option.name)
        if isinstance(value, dict):
            value = (*value, *value.values())
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, (str, Path)) and ("\n" in str(one) or not is_utf8(str(one))):
                raise InputError(
                    f"{printable(str(one))} ({_option(option.name)}) isn't UTF-8 or has a line break: "
                    "rename it, or give a link to it."
                )


def _check_choices(settings: Settings) -> None:
    """The parser refuses what is no choice; Python code may have a slip of the pen."""
    for name, choices in options.CHOICES.items():
        value = getattr(settings, name)
        optional = name in ("sampler", "lesion_map", "longitudinal")
        if value not in choices and not (optional and value is None):
            raise InputError(f"{_option(name)} can't be {value!r}: choose from {', '.join(choices)}.")


def _check_numbers(settings: Settings) -> None:
    threshold = settings.lesion_threshold
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(
            f"--lesion-threshold {threshold} is out of range: it is a probability, or a fraction of "
            "normal-appearing white matter (see --lesion-map), between 0 and 1."
        )
    if not 0 <= settings.lesion_min_volume < math.inf:
        raise InputError(
            f"--lesion-min-volume {settings.lesion_min_volume} is out of range: it is a volume in mm³ of at "
            "least 0."
        )
    if settings.sampling_steps is not None:
        options.check_steps(settings.sampling_steps)
    for name in ("nprocs", "omp_nthreads", "mem_gb"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{_option(name)} must be a positive number, not {value}.")


def _option(name: str) -> str:
    """How the command line calls an option, or what stands without one."""
    if name in ("bids_dir", "output_dir"):
        return {"bids_dir": "the dataset", "output_dir": "the output folder"}[name]
    return f"--{name.replace('_', '-')}"


def _absolute(path: str | os.PathLike) -> Path:
    absolute = Path(os.path.expanduser(path)).absolute()
    # behind a link, what is above isn't what the name says
    return absolute.resolve() if ".." in absolute.parts else absolute
