"""What a time is; wherever a latency is shown, its kind is shown with it."""

# Counted; taken on the device; of the vendor's simulator; of its compiler; of our formula.
KINDS = ("exact", "measured", "simulated", "compiled", "modelled")
