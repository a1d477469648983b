"""The graphs: ``init_<step>_wf`` builds a step, :mod:`.base` puts them together."""
