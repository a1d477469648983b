"""A new engine is its entry in the registry, and the modules of training import in no circle."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint import training
from bids_inpaint.networks import registry
from bids_inpaint.networks.diffusion import SAMPLERS
from bids_inpaint.training.__main__ import main, parser
from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.architectures.slice_unet import MODES
from bids_inpaint.training.config import Config
from bids_inpaint.training.engines import ENGINES, build, engine_of, make_task
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.holes import Holes
from bids_inpaint.training.slices import Slices, slice_card
from bids_inpaint.training.task import Engine, LesionTask
from bids_inpaint.training.to_onnx import slices_to_onnx


class Toy(Architecture):
    """One convolution of a slice and its hole."""

    def __init__(self, filters: int):
        super().__init__()
        self.inputs, self.multiple, self.mirror, self.neighbours = 2, 2, False, []
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(2, filters, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(filters, 1, 1)
        )

    def forward(self, x):
        return self.layers(x)


class ToyTask(LesionTask):
    """Squared error."""

    def samples(self, first, device):
        return Slices(self.config, self.cache, self.shapes, first, device)

    def loss(self, network, batch):
        image, visible = batch
        return (network(visible) - image).square().mean(), {}


TOY_ENGINE = Engine(
    name="ip-medgan",
    architecture=Toy,
    description="a toy",
    tasks={"inpaint": ToyTask},
    to_onnx=slices_to_onnx,
    card=slice_card,
)


@pytest.fixture
def config(tmp_path):
    text = TOY.format(steps=2, blind="false").replace('"wm"', '"range"\nengine = "ip-medgan"')
    text = text.replace("levels = 3\nresidual = true\nfull_resolution = false\n", "")
    (tmp_path / "toy.toml").write_text(text.replace("patch = 16", "patch = 80"))
    return Config.load(tmp_path / "toy.toml")


def test_an_engine_is_its_entry_in_the_registry(config, cache, shapes, tmp_path, monkeypatch):
    # under a name that the app knows
    monkeypatch.setitem(ENGINES, "ip-medgan", TOY_ENGINE)
    checkpoint = fit(config, make_task(config, cache, shapes), tmp_path / "run", threads=1, workers=0)
    model = registry.find(str(export(config, checkpoint, tmp_path / "toy.onnx", None, 0.1)))
    assert model.card.more["architecture"] == {"type": "a toy", "filters": 4}
    assert model.card.edge == 80
    assert model.card.more["parameters"] == sum(p.numel() for p in build(config).parameters())


def test_what_an_engine_cannot_do_is_refused(config, tmp_path, capsys):
    with pytest.raises(ValueError, match="engine ip-medgan is not blind: set blind = false"):
        engine_of(replace(config, blind=True))
    path = tmp_path / "toy.toml"
    path.write_text(path.read_text().replace("blind = false", "blind = true"))
    command = ["fit", str(path), str(tmp_path), str(tmp_path / "run"), "--lesions", str(tmp_path)]
    assert main(command) == 1
    assert f"{path}: engine ip-medgan is not blind" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs a folder of lesion shapes"):
        make_task(config, tmp_path, None)


def test_commands_that_need_lesion_shapes_say_so(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", str(tmp_path / "toy.toml"), str(tmp_path), str(tmp_path / "run")])
    assert end.value.code == 2
    assert "fit of this network needs --lesions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("compare", "--holes", get_args(Holes)),
        ("compare", "--sampler", SAMPLERS),
        ("brats", "--sampler", SAMPLERS),
        ("cross-validate", "--modes", MODES),
    ],
)
def test_choices_of_options_are_those_of_the_code(command, option, choices):
    """The parser has its own, as it loads no torch."""
    (subparsers,) = (a for a in parser()._actions if a.dest == "command")
    (action,) = (a for a in subparsers.choices[command]._actions if option in a.option_strings)
    assert tuple(action.choices) == tuple(choices)


def test_modules_of_training_import_in_no_circle():
    folder = Path(training.__file__).parent
    modules = {
        ".".join(["bids_inpaint.training", *p.relative_to(folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): p
        for p in folder.rglob("*.py")
    }
    imports = {name: _imported(path) & set(modules) - {name} for name, path in modules.items()}
    while leaves := {name for name, needed in imports.items() if not needed}:
        imports = {name: needed - leaves for name, needed in imports.items() if name not in leaves}
    assert not imports


def _imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
