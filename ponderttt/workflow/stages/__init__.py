"""The stages of the workflow, one function each; the rules of Snakemake only call them."""
