"""The quickstart: its stages, run one after the other, and the page that shows their results."""
