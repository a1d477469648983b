"""A run of the participant level: collect, build, run, report."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from pathlib import Path

from bids_inpaint.dataset import bids, description, template
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.matching import listed
from bids_inpaint.dataset.outputs import Products, expected, image_of, image_wf_name
from bids_inpaint.dataset.validation import validate
from bids_inpaint.errors import InputError
from bids_inpaint.networks.selection import Networks
from bids_inpaint.networks.session import Runtime
from bids_inpaint.participant import keeping, visits
from bids_inpaint.participant.ending import finish
from bids_inpaint.participant.locks import claim, clean
from bids_inpaint.participant.outcomes import Before, Run
from bids_inpaint.participant.plugin import choose, prepare_workers, set_nipype_level
from bids_inpaint.participant.progress import Progress, tell
from bids_inpaint.settings import Settings

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
    _set_up_logging(settings.verbose)
    description.check(settings)
    networks = Networks.of(settings)
    run_nodes = choose(settings, _nipype_level(settings.verbose))
    _ = settings.spm  # missing SPM is reported before anything is done
    Runtime(settings.device).providers()  # and so is a missing GPU
    images, refused = _collect(settings, networks)
    if not (settings.boilerplate_only or settings.reports_only):
        lock = claim(images, settings, held)
        if settings.clean_workdir:
            clean(settings.work_dir, lock)
        if settings.use_plugin is None:
            prepare_workers()
    files = template.prepare(settings.template, settings.work_dir)
    _configure_nipype(settings)
    run_uuid = str(uuid.uuid4())
    settings.save("participant", run_uuid)
    # the libraries behind the graph take seconds to import
    from bids_inpaint.workflows.base import init_participants_wf

    graph = partial(
        init_participants_wf, settings=settings, networks=networks, template=files, run_uuid=run_uuid
    )
    description.describe(settings)
    example = visits.example(images)
    first = graph(images=example).get_node(image_wf_name(example[0]))
    methods = {example[0].prefix: first.__desc__}
    citation = description.write_methods(settings.output_dir, run_uuid, methods)
    if settings.boilerplate_only:
        print(citation)
        return 0
    if settings.write_graph:
        _write_graph(first, settings)
    error = None
    run_images = [image for image in images if not image.kept]
    progress = Progress(len(run_images))
    run = Run(settings, networks, run_uuid, images, refused)
    before: dict[str, Before] = {}
    if not settings.reports_only:
        before = {image.prefix: Before.of(image, settings, run.products) for image in run_images}
        with progress:
            # a cluster works on more of them at once
            size = BATCH if settings.use_plugin is None else 4 * BATCH
            waiting = list(visits.batches(images, size))
            while waiting and not (error and settings.stop_on_first_crash):
                some = waiting.pop(0)
                batch = graph(images=some)
                processed = [image for image in some if not image.kept]
                methods |= {i.prefix: batch.get_node(image_wf_name(i)).__desc__ for i in processed}
                description.write_methods(settings.output_dir, run_uuid, methods)
                error = _execute(batch, progress, *run_nodes) or error
                ended = error and settings.stop_on_first_crash
                if not ended and (again := visits.without_failed(some, run, progress)):
                    waiting.insert(0, again)
    return finish(run, error, progress, before)


def _collect(settings: Settings, networks: Networks) -> tuple[list[Image], list[bids.Refused]]:
    """The images to process, and those that can't be; what is wrong with the dataset is reported.

    Raises
    ------
    InputError
        If none can be processed.
    """
    collected = bids.collect(settings)
    images, too_long = _named(collected.images, settings, networks)
    refused = [*collected.refused, *too_long]
    if not images:
        raise InputError(bids.nothing_left(refused))
    if settings.longitudinal:
        images, apart = keeping.gather(images, settings, networks)
        refused += apart
        if not images:
            raise InputError(bids.nothing_left(refused))
        if not any(image.visits or image.kept for image in images):
            nobody = "no participant has T1w images of two sessions"
            tell(f"note: {nobody}, so that --longitudinal changes nothing.")
    _report_collected(collected.warnings, refused, images)
    if not settings.skip_bids_validation:
        validate(settings, known={path for one in refused for path in one.paths})
    return images, refused


def _set_up_logging(verbose: int) -> None:
    level = logging.DEBUG if verbose > 1 else logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(level)
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
                # a scheduler is asked about every job each time, and shared file systems are slow; our plugin
                # waits for its workers instead
                "poll_sleep_duration": "5" if settings.use_plugin else "0",
                "job_finished_timeout": "60",
                "check_version": "false",
            }
        }
    )


def _nipype_level(verbose: int) -> int:
    # what goes wrong is said in our own words; the crash files have the rest
    return {0: logging.CRITICAL, 1: logging.INFO}.get(verbose, logging.DEBUG)


def _named(
    images: list[Image], settings: Settings, networks: Networks
) -> tuple[list[Image], list[bids.Refused]]:
    """The images whose outputs can have their names, and the others."""
    try:
        longest = os.pathconf(settings.output_dir, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = 0
    # some file systems don't know; while they are written, files have some more characters
    room = (longest if longest > 0 else 255) - 40
    products = Products.of(settings, networks)
    refused = []
    for image in images:
        name = max((Path(name).name for name in expected(image, settings.template, products)), key=len)
        if len(name) > room:
            reason = (
                f"{image.path} has so long a name that {name} could not be written into "
                f"{settings.output_dir}: make its labels of sub, ses, acq, ce, rec and run "
                f"{len(name) - room} characters shorter."
            )
            refused.append(bids.Refused(image.prefix, image.subject, reason))
    lost = {one.name for one in refused}
    return [image for image in images if image.prefix not in lost], refused


def _report_collected(
    warnings: Sequence[str], refused: Sequence[bids.Refused], images: Sequence[Image]
) -> None:
    """Say on the terminal what will not be done, and what is known of the images before anything is."""
    for one in refused:
        tell(f"error: {one.name}: {one.reason}")
    for warning in warnings:
        tell(f"warning: {warning}")
    notes: dict[str, list[str]] = {}
    for image in images:
        for note in image.notes:
            notes.setdefault(note, []).append(image.prefix)
    for note, names in notes.items():
        tell(f"note: {listed(names)}: {note}")


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
    progress.expect(Counter(image_of(node.fullname) for node in expanded(workflow).nodes()))
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
    from nipype.pipeline.engine.utils import generate_expanded_graph

    return generate_expanded_graph(deepcopy(workflow._create_flat_graph()))
