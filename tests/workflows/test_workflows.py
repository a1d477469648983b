"""The graphs of many option combinations are built and expanded, and nothing is run."""

import itertools
from dataclasses import replace
from io import StringIO

import pytest
from helpers import write_card, write_dataset
from nipype.interfaces.base import isdefined

from bids_inpaint.dataset import bids, template
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, crash_folder, expected, image_wf_name
from bids_inpaint.dataset.people import together
from bids_inpaint.errors import InputError
from bids_inpaint.networks import registry
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.crashes import read_crashes
from bids_inpaint.participant.progress import Progress
from bids_inpaint.participant.run import expanded
from bids_inpaint.settings import Settings, check
from bids_inpaint.workflows.base import init_participants_wf

NAMES = ["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz"]
MASKS = [n.replace("_T1w", "_label-lesion_mask") for n in NAMES]
BOTH = [False, True]
BRAINS = [n.replace("_T1w", "_desc-brain_mask") for n in NAMES]


def with_card(model: Model, **facts) -> Model:
    return replace(model, card=replace(model.card, **facts))


def build(tmp_path, toy_model, masks=False, brains=False, names=NAMES, **options):
    root = write_dataset(tmp_path / "bids", *names)
    if masks:
        options["lesion_masks"] = write_dataset(tmp_path / "masks", *MASKS)
    if brains:
        options["derivatives"] = {"other": write_dataset(tmp_path / "brains", *BRAINS)}
    settings = Settings(
        bids_dir=root, output_dir=tmp_path / "out", work_dir=tmp_path / "w", model=str(toy_model), **options
    )
    check(settings)
    files = template.prepare(template.DEFAULT, tmp_path.parent)
    images = bids.collect(settings).images
    model = registry.find(str(toy_model))
    networks = Networks(
        model,
        reference=with_card(model, blind=False) if masks and model.blind else None,
        flair=registry.find("joint", "flair") if settings.flair else None,
        by_flair=registry.find("blind-unet") if settings.flair else None,
    )
    workflow = init_participants_wf(
        images=images, settings=settings, networks=networks, template=files, run_uuid="x"
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
        assert ("reference_wf.given" in own) is masks
        assert "inpaint_wf.given" not in own
        mask = nodes[f"{image}.preprocess_wf.mask"].inputs
        assert str(mask.precomputed).endswith("brain_mask.nii.gz") is brains
        assert mask.skull_strip == skull_strip
        assert nodes[f"{image}.lesions_wf.native"].inputs.fill == fill
        said = nodes[f"{image}.outputs_wf.save"].inputs.metadata["native_inpainted"]["Options"]
        assert said.get("GivenFiles") == ("brain mask" if brains else None)
        # the network's whole output is kept where it is asked for
        assert isdefined(nodes[f"{image}.inpaint_wf.inpaint"].inputs.threshold) is (fill == "lesions")
    assert_everything_is_saved(workflow)


@pytest.mark.parametrize("method", ["n4", "ants"])
def test_the_bias_correction_is_the_one_asked_for(tmp_path, toy_model, method):
    """And the methods and the sidecars name it."""
    workflow, nodes = build(tmp_path, toy_model, bias_correction=method)
    image = "sub_01_ses_1_wf"
    assert nodes[f"{image}.preprocess_wf.correct_bias"].inputs.method == method
    saved = nodes[f"{image}.outputs_wf.save"].inputs.metadata["native_inpainted"]["Options"]
    assert saved["BiasCorrection"] == method
    assert ("N4 [@n4] of ANTs" in workflow.get_node(image).__desc__) is (method == "ants")


def test_visits_share_an_affine_and_decide_together(tmp_path):
    """And a person with one session has the graph that it has without the option."""
    root = write_dataset(tmp_path / "bids", *NAMES, "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    graphs = {}
    for longitudinal in BOTH:
        settings = Settings(
            root, tmp_path / "out", tmp_path / "w", longitudinal="keep" if longitudinal else None, tta=True
        )
        check(settings)
        images = bids.collect(settings).images
        workflow = init_participants_wf(
            images=together(images) if longitudinal else images, settings=settings,
            networks=Networks.of(settings), run_uuid="x",
            template=template.prepare(template.DEFAULT, tmp_path),
        )  # fmt: skip
        graphs[longitudinal] = {node.fullname.split(".", 1)[1]: node for node in expanded(workflow).nodes()}
        assert_visits_are_saved(workflow, longitudinal)
    added = {name for name in graphs[True] if name not in graphs[False]}
    fills = {f"{name}.inpaint_wf.fill" for name in ("sub_01_ses_1_wf", "sub_01_ses_2_run_1_wf")}
    assert {name for name in added if not name.startswith("person_01.")} == fills
    for name, node in graphs[False].items():
        if name.startswith("sub_02"):
            own = graphs[True][name].inputs
            assert own.get_hashval(hash_method="content") == node.inputs.get_hashval(hash_method="content")


def assert_visits_are_saved(workflow, longitudinal: bool) -> None:
    flat = workflow._create_flat_graph()
    save = [node for node in flat.nodes() if node.fullname.endswith("person_01.save")]
    assert len(save) == longitudinal
    for node in save:
        arrives = {pair[1] for *_, data in flat.in_edges(node, data=True) for pair in data["connect"]}
        assert arrives == {*node.inputs.names, "facts"}


def test_visits_need_a_probability(tmp_path, toy_model):
    for options in ({"model": str(toy_model)}, {"lesion_map": "difference"}, {"lesion_threshold": 0.1}):
        settings = Settings(tmp_path, tmp_path / "out", tmp_path / "w", longitudinal="keep", **options)
        with pytest.raises(InputError, match="--longitudinal needs a blind network"):
            Networks.of(settings)


def test_labels_with_a_plus_are_told_apart(tmp_path, toy_model):
    """Nipype takes no such names, and crash files and the progress find the image by its workflow's."""
    labels = ["1+2", "12", "1", "+1", "1+", "1++2"]
    names = [f"sub-{label}/anat/sub-{label}_{run}T1w.nii" for label in labels for run in ("", "run-2_")]
    _, nodes = build(tmp_path, toy_model, names=names)
    saved = {name: node for name, node in nodes.items() if name.endswith(".outputs_wf.save")}
    assert len(saved) == len(names)
    crash = crash_folder(tmp_path / "out", "1+2", "x") / "crash.txt"
    crash.parent.mkdir(parents=True)
    image = Image("", "", {"sub": "1+2", "run": "2"})
    node = next(node for node in saved.values() if "sub-1+2_run-2_" in str(node.inputs))
    crash.write_text(f"Node: {node.fullname}\nRuntimeError: boom")
    settings = Settings(bids_dir=tmp_path / "bids", output_dir=tmp_path / "out", work_dir=tmp_path / "w")
    (read,) = read_crashes("1+2", settings, "x")
    assert read.workflow == image_wf_name(image)
    progress = Progress(1, StringIO())
    progress.expect({image_wf_name(image): 2})
    progress(node, "end")
    assert progress.left == {image_wf_name(image): 1}


def test_the_seed_reaches_every_step_that_draws(tmp_path, toy_model):
    _, nodes = build(tmp_path, toy_model, masks=True, flair="joint", random_seed=7)
    drawing = [node for node in nodes.values() if hasattr(node.inputs, "random_seed")]
    assert {node.name for node in drawing} == {"register", "inpaint"}
    assert {node.inputs.random_seed for node in drawing} == {7}


def assert_everything_is_saved(workflow):
    """Every result that has a name in the outputs is connected to the node that saves its part."""
    flat = workflow._create_flat_graph()
    saves = [node for node in flat.nodes() if node.name.startswith("save")]
    images = {node.fullname.split(".")[1] for node in saves}
    assert images
    # one node a part of each image
    assert len(saves) == len(images) * len(saves[0].inputs.parts)
    assert {node.inputs.part for node in saves} == set(saves[0].inputs.parts)
    for node in saves:
        arrives = {pair[1] for *_, data in flat.in_edges(node, data=True) for pair in data["connect"]}
        assert arrives == {*node.inputs.names, "facts"}


@pytest.mark.parametrize("masks", BOTH)
@pytest.mark.parametrize("compare", BOTH)
@pytest.mark.parametrize("method", ["gmm", "atropos", "spm12", "none"])
def test_what_is_segmented(tmp_path, toy_model, monkeypatch, masks, compare, method):
    if method == "none" and compare:
        with pytest.raises(InputError, match="--compare-segmentation needs a segmentation"):
            build(
                tmp_path,
                toy_model,
                masks,
                segmentation=method,
                compare_segmentation=compare,
            )
        return
    monkeypatch.delenv("BIDS_INPAINT_SPM12", raising=False)
    monkeypatch.setenv("SPMMCRCMD", f"true {tmp_path} script")
    workflow, nodes = build(tmp_path, toy_model, masks, segmentation=method, compare_segmentation=compare)
    found = {name.split(".", 1)[1] for name in nodes if name.endswith((".gmm", ".atropos", ".spm12"))}
    steps = ["segment_wf", *["segment_original_wf"] * compare, *["segment_reference_wf"] * masks]
    assert found == (set() if method == "none" else {f"{step}.{method}" for step in steps})
    assert_everything_is_saved(workflow)
    image = Image("p", "u", {"sub": "01"})
    settings = Settings(
        tmp_path / "bids", tmp_path / "out", tmp_path / "w", model=str(toy_model), segmentation=method,
        compare_segmentation=compare, lesion_masks=tmp_path / "masks" if masks else None,
    )  # fmt: skip
    names = expected(image, template.DEFAULT, Products.of(settings, Networks.of(settings)))
    space = "sub-01/anat/sub-01_space-MNI152NLin2009aSym_res-1"
    for name, there in (
        ("dseg.nii.gz", method != "none"),
        ("desc-original_dseg.nii.gz", compare),
        ("label-GM_desc-reference_probseg.json", masks and method != "none"),
        ("desc-reference_T1w.nii.gz", masks),
        ("label-L_desc-reference_mask.nii.gz", masks),
    ):
        assert (f"{space}_{name}" in names) is there
        assert (f"sub-01/anat/sub-01_{name}" in names) is there


def test_a_flair_is_made_where_it_is_asked_for(tmp_path, toy_model):
    workflow, nodes = build(tmp_path, toy_model, flair="joint.onnx")
    assert {"sub_01_ses_1_wf.flair_wf.synthesise", "sub_01_ses_1_wf.outputs_wf.flair"} <= set(nodes)
    assert "[@orbes2018]" in workflow.get_node("sub_01_ses_1_wf").__desc__
    assert_everything_is_saved(workflow)
    image = Image("p", "u", {"sub": "01"})
    more = {
        "sub-01/anat/sub-01_desc-synth_FLAIR.json",
        "sub-01/anat/sub-01_desc-synth_FLAIR.nii.gz",
        "sub-01/anat/sub-01_label-L_desc-joint_mask.json",
        "sub-01/anat/sub-01_label-L_desc-joint_mask.nii.gz",
        "sub-01/figures/sub-01_desc-joint_T1w.png",
        "sub-01/figures/sub-01_desc-synth_FLAIR.png",
        "sub-01/figures/sub-01_desc-synth_FLAIR.svg",
    }
    names = [set(expected(image, template.DEFAULT, Products(flair=flair))) for flair in BOTH]
    assert names[1] - names[0] == more


def test_a_real_flair_is_used_where_there_is_one(tmp_path, toy_model):
    names = (
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_FLAIR.nii.gz",
    )
    workflow, nodes = build(tmp_path, toy_model, flair="joint", names=names)
    assert {"sub_01_wf.flair_wf.synthesise", "sub_02_wf.flair_wf.find", "sub_02_wf.outputs_wf.both"} <= set(
        nodes
    )
    assert "sub_02_wf.flair_wf.synthesise" not in nodes
    assert str(nodes["sub_02_wf.flair_wf.register"].inputs.in_file).endswith("sub-02_FLAIR.nii.gz")
    assert "FLAIR) image was registered" in workflow.get_node("sub_02_wf").__desc__
    assert_everything_is_saved(workflow)
    image = Image("p", "u", {"sub": "01"}, flair=("f", "v"))
    names = [set(expected(image, template.DEFAULT, Products(flair=flair))) for flair in BOTH]
    assert names[1] - names[0] == {
        *(
            f"sub-01/anat/sub-01_{name}.{end}"
            for name in ("space-T1w_FLAIR", "label-L_desc-joint_mask", "label-L_desc-joint_probseg")
            for end in ("json", "nii.gz")
        ),
        "sub-01/anat/sub-01_from-FLAIR_to-T1w_mode-image_xfm.txt",
        "sub-01/figures/sub-01_desc-both_T1w.png",
        "sub-01/figures/sub-01_space-T1w_FLAIR.png",
        "sub-01/figures/sub-01_space-T1w_FLAIR.svg",
    }


def test_non_blind_networks_fill_the_given_lesions(tmp_path, toy_model):
    path = tmp_path / "masked.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, blind=False)
    _, nodes = build(tmp_path, path, masks=True)
    own = {name.split(".", 1)[1] for name in nodes if name.startswith("sub_01_ses_1_wf.")}
    assert "inpaint_wf.given" in own
    assert not any(name.startswith("reference") for name in own)


def test_threads_and_memory_stay_within_the_run(tmp_path, toy_model):
    _, nodes = build(tmp_path, toy_model, nprocs=2, omp_nthreads=8)
    assert max(node.n_procs for node in nodes.values()) == 2
    assert max(node.mem_gb for node in nodes.values()) <= 4


def test_threads_are_no_part_of_the_result(tmp_path, toy_model):
    """A rerun with other resources continues from the same work folder."""
    hashes = []
    for folder, threads in (("a", 1), ("a", 2)):
        _, nodes = build(tmp_path / folder, toy_model, nprocs=2, omp_nthreads=threads)
        node = nodes["sub_01_ses_1_wf.segment_wf.gmm"]
        hashes.append(node.inputs.get_hashval(hash_method="content")[1])
    assert hashes[0] == hashes[1]


def test_names_of_outputs():
    image = Image("p", "u", {"sub": "01", "ses": "x", "run": "02"})
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
    assert "sub-01/figures/sub-01_ses-x_run-02_desc-inpainted_T1w.png" in names
    assert len(names) == len(set(names))
