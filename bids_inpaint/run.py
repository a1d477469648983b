"""A run of the participant level: collect, build, run, report."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO

from bids_inpaint import bids, models, template
from bids_inpaint.images import InputError
from bids_inpaint.matching import listed
from bids_inpaint.progress import Progress, tell
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
    from bids_inpaint.plugin import choose, prepare_workers

    dataset.check(settings)
    model, second, second_alone = _engines(settings)
    draws = "ddpm" in (model.engine, second.engine if second else "")
    if (settings.sampler or settings.sampling_steps) and not draws:
        raise InputError(
            "--sampler and --sampling-steps are for diffusion models alone: leave them out, or choose one "
            "with --model ddpm."
        )
    plugin, plugin_args = choose(settings, _nipype_level(settings.verbose))
    _ = settings.spm  # missing SPM is told before anything is done
    _check_device(settings)
    collected = bids.collect(settings)
    found, too_long = _named(collected.images, settings, model)
    refused = [*collected.refused, *too_long]
    if not found:
        raise InputError(bids.nothing_left(refused))
    _tell_collected(collected.warnings, refused, found)
    if not settings.skip_bids_validation:
        validate(settings, known={path for one in refused for path in one.paths})
    reference = models.find(models.REFERENCE) if settings.lesion_masks and model.blind else None
    flair = models.find(settings.flair, "flair") if settings.flair else None
    if not (settings.boilerplate_only or settings.reports_only):
        lock = _claim(found, settings, held)
        if settings.clean_workdir:
            _clean(settings.work_dir, lock)
    if settings.use_plugin is None and not (settings.boilerplate_only or settings.reports_only):
        prepare_workers()
    files = template.prepare(settings.template, settings.work_dir)

    from bids_inpaint import outcomes
    from bids_inpaint.ending import finish
    from bids_inpaint.workflows.base import image_wf_name, init_participants_wf
    from bids_inpaint.workflows.outputs import Products, provenance

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
    settings.save("participant", run_uuid)
    first = graph(images=found[:1]).get_node(image_wf_name(found[0]))
    citation = dataset.write_boilerplate(settings.output_dir, first.__desc__)
    if settings.boilerplate_only:
        print(citation)
        return 0
    if settings.write_graph:
        _write_graph(first, settings)
    error = None
    progress = Progress(len(found))
    before: dict[str, outcomes.Before] = {}
    if not settings.reports_only:
        products = Products.of(settings, model)
        before = {image.prefix: outcomes.Before.of(image, settings, products) for image in found}
        with progress:
            # a cluster works on more of them at once
            size = BATCH if settings.use_plugin is None else 4 * BATCH
            for start in range(0, len(found), size):
                batch = graph(images=found[start : start + size])
                error = _execute(batch, progress, plugin, plugin_args) or error
                if error and settings.stop_on_first_crash:
                    break
    made = provenance(settings, model, second)
    return finish(found, error, settings, model, made, run_uuid, progress, before, refused)


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
            f"Network {second.name} of --second-pass is blind: name one that fills masks, or 'none'."
        )
    return model, second, False


def _check_device(settings: Settings) -> None:
    from bids_inpaint.inference import Runtime

    try:
        Runtime(settings.device).providers()
    except ValueError as error:
        raise InputError(str(error)) from None


def _named(
    found: list[bids.Image], settings: Settings, model: models.Model
) -> tuple[list[bids.Image], list[bids.Refused]]:
    """The images whose outputs can have their names, and the others."""
    from bids_inpaint.workflows.outputs import Products, expected

    try:
        longest = os.pathconf(settings.output_dir, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = 0
    # some file systems don't know; while they are written, files have some more characters
    room = (longest if longest > 0 else 255) - 40
    products = Products.of(settings, model)
    refused = []
    for image in found:
        name = max((Path(name).name for name in expected(image, settings.template, products)), key=len)
        if len(name) > room:
            reason = (
                f"{image.path} has so long a name that {name} could not be written into "
                f"{settings.output_dir}: make its labels of sub, ses, acq, ce, rec and run "
                f"{len(name) - room} characters shorter."
            )
            refused.append(bids.Refused(image.prefix, image.subject, reason))
    lost = {one.name for one in refused}
    return [image for image in found if image.prefix not in lost], refused


def _tell_collected(
    warnings: Sequence[str], refused: Sequence[bids.Refused], found: Sequence[bids.Image]
) -> None:
    """Tell what will not be done, and what is known of the images before anything is."""
    for one in refused:
        tell(f"error: {one.name}: {one.reason}")
    for warning in warnings:
        tell(f"warning: {warning}")
    notes: dict[str, list[str]] = {}
    for image in found:
        for note in image.notes:
            notes.setdefault(note, []).append(image.prefix)
    for note, names in notes.items():
        tell(f"note: {listed(names)}: {note}")


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
    file.write_text("digraph workflow {\n  rankdir=LR;\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")
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


def expanded(workflow):
    """The graph of the nodes that will run (networkx), without those that only pass values on."""
    from copy import deepcopy

    from nipype.pipeline.engine.utils import generate_expanded_graph

    return generate_expanded_graph(deepcopy(workflow._create_flat_graph()))
