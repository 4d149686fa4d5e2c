"""Jobs with the shapes of the real ones, on weights so small that nothing has to be trained: real files and gaps, real
processes, and figures that follow from the weights, so that a test decides what a gate says by what it uploads."""
