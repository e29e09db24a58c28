"""The one-shot, latency-aware search (TuNAS, arXiv 2008.06120, on the detection objective)."""
