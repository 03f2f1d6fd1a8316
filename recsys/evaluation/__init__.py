"""How good recommendations are: protocol, metrics, baselines, report."""
