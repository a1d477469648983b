"""The export level: a raw dataset whose T1w images are the inpainted ones, for the next tool."""
