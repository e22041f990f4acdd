"""From a trained model and a split to numbers: `classification` (which class),
`localisation` (where it looks), `restoration` (how sharp), `latency` (how fast)."""
