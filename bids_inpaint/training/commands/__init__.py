"""The commands of ``python -m bids_inpaint.training``."""

from bids_inpaint.training.commands import caches, flair, holes, networks

#: By name, in the order of their use.
COMMANDS = {**caches.COMMANDS, **networks.COMMANDS, **holes.COMMANDS, **flair.COMMANDS}
