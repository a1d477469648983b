"""The scheduler of this machine: steps follow each other, and one whose worker is killed ends the run."""

from itertools import pairwise

from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from bids_inpaint.participant.plugin import ImageByImage


def one_more(number):
    return number + 1


def end_at_once(number):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def chain(folder, functions):
    """One image whose steps need each other."""
    image = pe.Workflow("sub_01_wf")
    nodes = [
        pe.Node(Function(input_names=["number"], output_names=["number"], function=function), f"step{i}")
        for i, function in enumerate(functions)
    ]
    nodes[0].inputs.number = 0
    image.add_nodes(nodes)
    for before, after in pairwise(nodes):
        image.connect(before, "number", after, "number")
    whole = pe.Workflow("bids_inpaint_wf", base_dir=str(folder))
    whole.config["execution"] = {"poll_sleep_duration": "0", "crashdump_dir": str(folder)}
    whole.add_nodes([image])
    return whole


def run(whole):
    ended = []
    plugin_args = {
        "n_procs": 2, "memory_gb": 4,
        "status_callback": lambda node, status: ended.append(node.name) if status == "end" else None,
    }  # fmt: skip
    try:
        whole.run(plugin=ImageByImage(plugin_args=plugin_args), plugin_args=plugin_args)
    except RuntimeError as error:
        return ended, str(error)
    return ended, ""


def test_steps_follow_each_other(tmp_path):
    ended, error = run(chain(tmp_path, [one_more] * 4))
    assert (ended, error) == ([f"step{i}" for i in range(4)], "")


def test_a_killed_worker_ends_the_steps_that_need_it(tmp_path):
    ended, error = run(chain(tmp_path, [one_more, end_at_once, one_more]))
    assert ended[0] == "step0"
    assert "step2" not in ended
    assert "WorkerKilled" in error
