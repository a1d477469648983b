"""The graphs of many option combinations are built and expanded, and nothing is run."""

import itertools

import pytest
from helpers import write_dataset

from bids_inpaint import bids, models, template
from bids_inpaint.run import expanded
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.base import init_participants_wf
from bids_inpaint.workflows.outputs import expected

NAMES = ["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz"]
MASKS = [n.replace("_T1w", "_label-lesion_mask") for n in NAMES]
BOTH = [False, True]
BRAINS = [n.replace("_T1w", "_desc-brain_mask") for n in NAMES]


def build(tmp_path, toy_model, masks=False, brains=False, **options):
    root = write_dataset(tmp_path / "bids", *NAMES)
    if masks:
        options["lesion_masks"] = write_dataset(tmp_path / "masks", *MASKS)
    if brains:
        options["derivatives"] = {"other": write_dataset(tmp_path / "brains", *BRAINS)}
    settings = Settings(
        bids_dir=root, output_dir=tmp_path / "out", work_dir=tmp_path / "w", model=str(toy_model), **options
    )
    files = template.prepare(template.DEFAULT, tmp_path.parent)
    images = bids.collect(settings)
    workflow = init_participants_wf(
        images=images, settings=settings, model=models.find(str(toy_model)), template=files, run_uuid="x"
    )
    return workflow, {node.fullname.split(".", 1)[1]: node for node in expanded(workflow).nodes()}


@pytest.mark.parametrize(
    ("masks", "brains", "fill", "skull_strip", "sloppy"),
    list(
        itertools.product([False, True], [False, True], ["lesions", "full"], ["auto", "force"], [False, True])
    ),
)
def test_option_combinations(tmp_path, toy_model, masks, brains, fill, skull_strip, sloppy):
    workflow, nodes = build(
        tmp_path, toy_model, masks, brains, fill=fill, skull_strip=skull_strip, sloppy=sloppy, nprocs=3
    )
    for image in ("sub_01_ses_1_wf", "sub_01_ses_2_run_1_wf"):
        own = {name.split(".", 1)[1] for name in nodes if name.startswith(f"{image}.")}
        assert {"preprocess_wf.register", "inpaint_wf.inpaint", "lesions_wf.native", "outputs_wf.save"} <= own
        assert ("inpaint_wf.given" in own) is masks
        mask = nodes[f"{image}.preprocess_wf.mask"].inputs
        assert str(mask.precomputed).endswith("brain_mask.nii.gz") is brains
        assert mask.skull_strip == skull_strip
        assert nodes[f"{image}.lesions_wf.native"].inputs.fill == fill
    # every result that has a name in the outputs is connected to the node that saves it
    flat = workflow._create_flat_graph()
    for node in flat.nodes():
        if node.name != "save":
            continue
        arrives = {pair[1] for *_, data in flat.in_edges(node, data=True) for pair in data["connect"]}
        assert arrives == {*node.inputs.names, "found"}


def test_threads_and_memory_stay_within_the_run(tmp_path, toy_model):
    _, nodes = build(tmp_path, toy_model, nprocs=2, omp_nthreads=8)
    assert max(node.n_procs for node in nodes.values()) == 2
    assert max(node.mem_gb for node in nodes.values()) <= 4


def test_threads_are_no_part_of_the_result(tmp_path, toy_model):
    """A rerun with other resources continues from the same work folder."""
    hashes = []
    for folder, threads in (("a", 1), ("a", 2)):
        _, nodes = build(tmp_path / folder, toy_model, nprocs=2, omp_nthreads=threads)
        node = nodes["sub_01_ses_1_wf.segment_wf.atropos"]
        hashes.append(node.inputs.get_hashval(hash_method="content")[1])
    assert hashes[0] == hashes[1]


def test_names_of_outputs():
    image = bids.Image("p", "u", {"sub": "01", "ses": "x", "run": "02"})
    names = expected(image, "MNI152NLin2009aSym")
    stem = "sub-01/ses-x/anat/sub-01_ses-x_run-02"
    for suffix in (
        "desc-inpainted_T1w.nii.gz",
        "label-L_desc-inpaint_mask.json",
        "space-MNI152NLin2009aSym_res-1_label-WM_probseg.nii.gz",
        "from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt",
        "desc-lesions_dseg.tsv",
    ):
        assert f"{stem}_{suffix}" in names
    assert "sub-01/figures/sub-01_ses-x_run-02_desc-inpainted_T1w.svg" in names
    assert len(names) == len(set(names))
