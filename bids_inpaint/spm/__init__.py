"""SPM12 and SPM25: where they are, and their unified segmentation."""
