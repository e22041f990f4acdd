"""From a trained model and a split to numbers: `classification` (which class),
`localisation` (where regions and boxes lie), `heatmaps` and `explanation` (what a
prediction hangs on), `robustness` (what damage costs, how far classes are apart),
`causal`, with `blame` and `part_edits` (what it hangs on, by experiment),
`restoration` (how sharp), `latency` (how fast) and `cost` (how large).

What is heavy is imported where it is used: looking up a finished run loads these files
and needs none of it.
"""
