"""One-shot, latency-aware architecture search (TuNAS, arXiv 2008.06120, with a detection objective)."""
