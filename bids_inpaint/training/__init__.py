"""Training, evaluation and export of the networks. The only place that imports torch."""
