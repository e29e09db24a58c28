"""The kinds of cost; wherever a latency is shown, its kind is shown with it."""

# The costs are, in this order: counted exactly, measured on the device, reported by the vendor's simulator,
# estimated by the vendor's compiler, computed by a formula of this project.
KINDS = ("exact", "measured", "simulated", "compiled", "modelled")
