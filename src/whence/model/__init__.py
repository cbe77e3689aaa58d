"""A Hugging Face model seen through canonical sites: what it writes, through which norms, with which attention."""
