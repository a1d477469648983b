"""A network in ONNX Runtime: where and how it runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_inpaint.errors import InputError
from bids_inpaint.networks.card import Model
from bids_inpaint.options import check_steps

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs.

    Attributes
    ----------
    device : {'auto', 'cpu', 'cuda'}
    threads : int
        Number of CPU threads.
    seed : int
        Of networks that draw what they fill.
    sampler : str, optional
        One of :data:`bids_inpaint.options.SAMPLERS`; that of the network's card if none is given.
    steps : int, optional
        Of the sampler; those of the network's card if none are given.
    mirror : bool
        Whether a network of volumes also sees the mirror image of a whole working grid; the result is the
        mean of both.
    """

    device: str = "auto"
    threads: int = 1
    seed: int = 0
    sampler: str | None = None
    steps: int | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """ONNX Runtime's execution providers to use and their options, best first: CUDA, OpenVINO, its own.

        Raises
        ------
        InputError
            If CUDA is asked for and this ONNX Runtime has none.
        """
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if self.device == "cuda" and "CUDAExecutionProvider" not in available:
            raise InputError(
                "--device cuda needs onnxruntime-gpu and a CUDA driver, but this ONNX Runtime offers "
                f"only {', '.join(available)}: install onnxruntime-gpu, or use --device cpu."
            )
        usable: dict[str, dict[str, str]] = {}
        if self.device != "cpu":
            usable["CUDAExecutionProvider"] = {}
        usable["OpenVINOExecutionProvider"] = {"device_type": "CPU", "load_config": self._openvino()}
        usable["CPUExecutionProvider"] = {}
        return [(name, options) for name, options in usable.items() if name in available]

    def _openvino(self) -> str:
        precision = "bf16" if _has_amx() else "f32"
        options = {
            "INFERENCE_NUM_THREADS": str(self.threads),
            "INFERENCE_PRECISION_HINT": precision,
            # the cores that it would choose may not be this process's
            "ENABLE_CPU_PINNING": "NO",
        }
        return json.dumps({"CPU": options})


def _has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8", errors="replace")


def open_session(model: Model, runtime: Runtime) -> onnxruntime.InferenceSession:
    """Load a network.

    Raises
    ------
    InputError
        If CUDA is asked for and can't be started.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # the defaults keep the peak allocated for ever, and pin threads to cores that SLURM may not own
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    # failures are raised; names in a network may hold anything
    options.log_severity_level = 4
    # a fold of the same sums in another order would change the last bits from run to run
    options.use_deterministic_compute = True
    providers = runtime.providers()
    if providers[0][0].startswith("CUDA") and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's libraries come as Python packages
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(os.fspath(model.path), options, providers=providers)
    if runtime.device == "cuda" and session.get_providers()[0] != providers[0][0]:
        raise InputError(
            "--device cuda was asked for, but ONNX Runtime can't start CUDA: show the GPU to the container "
            "(--gpus all, --nv), or use --device cpu."
        )
    return session
