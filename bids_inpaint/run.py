"""A run of the participant level: collect, build, run, report."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import IO, Any

from bids_inpaint import bids, models, template
from bids_inpaint.files import printable, read_sidecar
from bids_inpaint.images import InputError
from bids_inpaint.progress import Progress
from bids_inpaint.settings import Settings
from bids_inpaint.validation import validate

log = logging.getLogger("bids_inpaint")

#: Images in one graph: Nipype takes about a megabyte and 0.1 s for each before any is begun.
BATCH = 256


def run_participants(settings: Settings) -> int:
    """Process every T1w the settings ask for.

    Returns
    -------
    int
        0 if every image is done, 1 if some failed (the others are done).

    Raises
    ------
    InputError
        If nothing can be run.
    """
    with ExitStack() as held:
        return _run(settings, held)


def _run(settings: Settings, held: ExitStack) -> int:
    from bids_inpaint import dataset

    _set_up_logging(settings.verbose)
    dataset.check(settings)
    model, second, second_alone = _engines(settings)
    draws = "ddpm" in (model.engine, second.engine if second else "")
    if (settings.sampler or settings.sampling_steps) and not draws:
        raise InputError("--sampler and --sampling-steps are for diffusion models alone: leave them out.")
    plugin, plugin_args = _plugin(settings)
    _ = settings.spm  # missing SPM is told before anything is done
    _check_device(settings)
    if not settings.skip_bids_validation:
        validate(settings)
    found = bids.collect(settings)
    _check_names(found, settings, model)
    reference = models.find(models.REFERENCE) if settings.lesion_masks and model.blind else None
    flair = models.find(settings.flair, "flair") if settings.flair else None
    if not (settings.boilerplate_only or settings.reports_only):
        lock = _claim(found, settings, held)
        if settings.clean_workdir:
            _clean(settings.work_dir, lock)
    if settings.use_plugin is None and not (settings.boilerplate_only or settings.reports_only):
        from bids_inpaint.plugin import prepare_workers

        prepare_workers()
    files = template.prepare(settings.template, settings.work_dir)

    from bids_inpaint.workflows.base import image_wf_name, init_participants_wf

    _configure_nipype(settings)
    run_uuid = str(uuid.uuid4())
    graph = partial(
        init_participants_wf,
        settings=settings,
        model=model,
        template=files,
        run_uuid=run_uuid,
        reference=reference,
        second=second,
        second_alone=second_alone,
        flair=flair,
    )
    dataset.describe(settings)
    first = graph(images=found[:1]).get_node(image_wf_name(found[0]))
    citation = dataset.write_boilerplate(settings.output_dir, first.__desc__)
    if settings.boilerplate_only:
        print(citation)
        return 0
    if settings.write_graph:
        _write_graph(first, settings)
    error = None
    if not settings.reports_only:
        with Progress(len(found)) as progress:
            # a cluster works on more of them at once
            size = BATCH if settings.use_plugin is None else 4 * BATCH
            for start in range(0, len(found), size):
                batch = graph(images=found[start : start + size])
                error = _execute(batch, progress, plugin, plugin_args) or error
                if error and settings.stop_on_first_crash:
                    break
    return _finish(found, error, settings, model, run_uuid)


def _lock(lock: IO, name: str) -> bool:
    """Lock a workflow until the file is closed, or this process ends, if no other run has it.

    Each has a byte of the one file, by its name: a process may open fewer files than a run has images.
    """
    place = int.from_bytes(sha256(name.encode()).digest()[:7], "big")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # some file systems have no locks
        log.debug("%s is not locked: %s", name, error)
    return True


def _claim(found: list[bids.Image], settings: Settings, held: ExitStack) -> IO:
    """Lock the images in the work folder until the stack is closed.

    Two runs that work on an image in the same folder would delete each other's files.
    """
    from bids_inpaint.workflows.base import image_wf_name

    # closing the file elsewhere in this process would end the locks
    path = settings.work_dir / ".bids_inpaint.lock"
    try:
        lock = held.enter_context(path.open("a"))
    except OSError as error:
        raise InputError(
            f"{path} can't be opened ({error.strerror}): name another work folder with -w."
        ) from None
    busy = [image.prefix for image in found if not _lock(lock, image_wf_name(image))]
    if busy:
        raise InputError(
            f"Another run works on {', '.join(busy[:5])}{' and others' if len(busy) > 5 else ''} in "
            f"{settings.work_dir}: wait for it, or name another folder with -w."
        )
    return lock


def _tell(text: str) -> None:
    print(printable(f"bids_inpaint: {text}"), file=sys.stderr)


def _set_up_logging(verbose: int) -> None:
    level = logging.DEBUG if verbose > 1 else logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(level)
    from bids_inpaint.plugin import set_nipype_level

    set_nipype_level(_nipype_level(verbose))


def _configure_nipype(settings: Settings) -> None:
    # before the graph is built: a workflow copies the configuration then
    from nipype import config

    config.update_config(
        {
            "execution": {
                "crashfile_format": "txt",
                "remove_unnecessary_outputs": "false",
                "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
                # a scheduler is asked about every job each time, and shared file systems are slow
                "poll_sleep_duration": "5" if settings.use_plugin else "0.2",
                "job_finished_timeout": "60",
                "check_version": "false",
            }
        }
    )


def _nipype_level(verbose: int) -> int:
    # what goes wrong is said in our own words; the crash files have the rest
    return {0: logging.CRITICAL, 1: logging.INFO}.get(verbose, logging.DEBUG)


def _engines(settings: Settings) -> tuple[models.Model, models.Model | None, bool]:
    """The network, that of the second pass, and whether the second one's filling is the result.

    One that needs masks, and is given none, fills what the default network finds.
    """
    model = models.find(settings.model)
    if not model.blind:
        if settings.lesion_masks:
            return model, None, False
        return models.find(models.DEFAULT), model, True
    if settings.second_pass == "none":
        return model, None, False
    second = models.find(settings.second_pass)
    if second.blind:
        raise InputError(
            f"Network {second.name} of --second-pass is blind: name one that fills masks, or none."
        )
    return model, second, False


def _check_device(settings: Settings) -> None:
    from bids_inpaint.inference import Runtime

    try:
        Runtime(settings.device).providers()
    except ValueError as error:
        raise InputError(str(error)) from None


def _check_names(found: list[bids.Image], settings: Settings, model: models.Model) -> None:
    from bids_inpaint.workflows.outputs import Products, expected

    try:
        longest = os.pathconf(settings.output_dir, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = 0
    # some file systems don't know; while they are written, files have some more characters
    room = (longest if longest > 0 else 255) - 40
    products = Products.of(settings, model)
    for image in found:
        name = max((Path(name).name for name in expected(image, settings.template, products)), key=len)
        if len(name) > room:
            raise InputError(
                f"{image.path} has so long a name that {name} could not be written into "
                f"{settings.output_dir}: give it entities that are {len(name) - room} characters shorter."
            )


def _plugin(settings: Settings) -> tuple[Any, dict]:
    """Nipype plugin and its arguments: ours on this machine, or the user's."""
    if settings.use_plugin is None:
        from bids_inpaint.plugin import ImageByImage

        args: dict[str, Any] = {
            "n_procs": settings.nprocs,
            "raise_insufficient": False,
            "log_level": _nipype_level(settings.verbose),
        }
        if settings.mem_gb:
            args["memory_gb"] = settings.mem_gb
        return ImageByImage, args
    import yaml

    # Nipype's batch plugins name jobs by it; containers and cron have none
    os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")
    remedy = "it needs 'plugin: NAME' and, if wanted, 'plugin_args: {…}'."
    try:
        content = yaml.safe_load(settings.use_plugin.read_text())
        plugin, args = content["plugin"], dict(content.get("plugin_args") or {})
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"Plugin file {settings.use_plugin} can't be used ({error}): {remedy}") from None
    from nipype.pipeline import plugins

    if not hasattr(plugins, f"{plugin}Plugin"):
        raise InputError(f"Plugin file {settings.use_plugin} names {plugin!r}, which Nipype hasn't: {remedy}")
    return plugin, args


def _clean(work_dir: Path, lock: IO) -> None:
    """Remove what earlier runs left in the work folder, and nothing of the user's or of other runs."""
    folders = [folder for folder in work_dir.glob("bids_inpaint_wf/*") if folder.is_dir()]
    left = [folder for folder in folders if not _lock(lock, folder.name)]
    whole = [] if left else [*work_dir.glob("bids_inpaint_wf"), *work_dir.glob("tpl-*")]
    for folder in [*folders, *whole]:
        if folder not in left:
            shutil.rmtree(folder)


def _write_graph(workflow, settings: Settings) -> None:
    """Write the graph of one image in Graphviz's language, and as a picture where Graphviz is installed."""
    file = settings.output_dir / "logs" / "workflow.dot"
    names = [tuple(node.fullname.split(".", 1)[-1] for node in edge) for edge in expanded(workflow).edges()]
    lines = [f'  "{source}" -> "{target}";' for source, target in names]
    file.write_text("digraph workflow {\n  rankdir=LR;\n" + "\n".join(lines) + "\n}\n")
    if dot := shutil.which("dot"):
        subprocess.run([dot, "-Tsvg", "-O", str(file)], check=False)
    log.info("The graph is in %s", file)


def _execute(workflow, progress: Progress, plugin, plugin_args: dict) -> Exception | None:
    """Run the graph; return what Nipype ended with, if it wasn't well."""
    progress.expect(Counter(node.fullname.split(".")[1] for node in expanded(workflow).nodes()))
    plugin_args = {**plugin_args, "status_callback": progress}
    runner = plugin if isinstance(plugin, str) else plugin(plugin_args=plugin_args)
    try:
        workflow.run(plugin=runner, plugin_args=plugin_args)
    except Exception as error:
        # every crash of a step has its file by now, and what was not hurt has run
        log.debug("nipype ended with %s", error)
        return error
    return None


def warnings_of(image: bids.Image, settings: Settings) -> list[str]:
    """What the networks were not made for in an image, from its sidecar."""
    from bids_inpaint.workflows.outputs import prefix

    sidecar = settings.output_dir / f"{prefix(image)}_desc-inpainted_T1w.json"
    warnings = read_sidecar(sidecar).get("QualityWarnings")
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def expanded(workflow):
    """The graph of the nodes that will run (networkx), without those that only pass values on."""
    from copy import deepcopy

    from nipype.pipeline.engine.utils import generate_expanded_graph

    return generate_expanded_graph(deepcopy(workflow._create_flat_graph()))


def _crashes(subject: str, settings: Settings, run_uuid: str) -> list[tuple[Path, str, str]]:
    """The crash files of a participant's run, with one sentence on each and their text."""
    from bids_inpaint.workflows.base import crash_folder

    paths = sorted(crash_folder(settings.output_dir, subject, run_uuid).glob("crash*.txt"))
    texts = [path.read_text(errors="replace") for path in paths]
    return [(path, explain(text, settings), text) for path, text in zip(paths, texts, strict=True)]


def _tell_crashes(crashes: list[tuple[Path, str, str]], error: Exception | None) -> None:
    for path, sentence, _ in crashes:
        _tell(f"error: {sentence} (details: {path})")
    if error and not crashes:
        # no step crashed: the plugin did
        _tell(f"error: {type(error).__name__}: {error}")


def explain(crash: str, settings: Settings) -> str:
    """One sentence on a crash for the user, from the text of its file."""
    if known := re.findall(r"InputError: (.+)", crash):
        return known[-1].strip()
    step = re.search(r"^Node: (\S+)", crash)
    where = f"Step {step.group(1).split('.', 1)[-1]}" if step else "A step"
    if "No space left on device" in crash or "Disk quota exceeded" in crash:
        return (
            f"{where} found no space on the disk of {settings.work_dir} or {settings.output_dir}: "
            "free some and run the same command again."
        )
    if re.search("worker process was killed|MemoryError|bad_alloc|Failed to allocate memory", crash):
        return f"{where} was killed or had too little memory: run again with a smaller --nprocs."
    if "exited with non-zero status" in crash or "Registration failed with error code" in crash:
        return (
            f"{where} failed in ANTs, as it does with too little memory: run again with a smaller --nprocs, "
            "or else please report it with its crash file."
        )
    missing = f"FileNotFoundError: [Errno 2] No such file or directory: '{settings.work_dir}"
    if "the results file corresponding" in crash or missing in crash:
        return (
            f"{where} misses what was in {settings.work_dir}: nothing else may clear that folder during a "
            "run; run the same command again."
        )
    last = [line.strip() for line in crash.splitlines() if line.strip()][-1:]
    return f"{where} failed ({''.join(last)}): please report it with its crash file."


def _finish(
    found: list[bids.Image],
    error: Exception | None,
    settings: Settings,
    model: models.Model,
    run_uuid: str,
) -> int:
    """Tell what went wrong, write the reports and sum up."""
    from bids_inpaint.report import write_report
    from bids_inpaint.workflows.outputs import Products, is_finished

    subjects = sorted({image.subject for image in found})
    crashes = {subject: _crashes(subject, settings, run_uuid) for subject in subjects}
    _tell_crashes([*chain.from_iterable(crashes.values())], error)
    crashed = error is not None
    products = Products.of(settings, model)
    unfinished = [image for image in found if not is_finished(image, settings, products)]
    for subject in subjects:
        own, left = ([i for i in images if i.subject == subject] for images in (found, unfinished))
        try:
            errors = [crash[1:] for crash in crashes[subject]]
            report = write_report(subject, own, left, settings, model, errors)
        except Exception as reason:
            # the others have theirs
            crashed = True
            log.debug("the report failed", exc_info=True)
            _tell(
                f"error: the report of sub-{subject} could not be written ({type(reason).__name__}: "
                f"{reason}); the images are not concerned: run again with --reports-only."
            )
            continue
        log.info("Report: %s", report)
    for image in found:
        for warning in warnings_of(image, settings):
            _tell(f"warning: {image.prefix}: {warning}")
    done = len(found) - len(unfinished)
    _tell(f"{done} of {len(found)} images done; results in {settings.output_dir}")
    return 1 if unfinished or crashed else 0
