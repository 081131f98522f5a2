"""What is on disk and what it means: run folders, status, manifests, final numbers, kinds of claims, noise, names.

The sweep writes these, and results, reports, trackers and commands read them. Each has one owner here. Nothing in this
folder imports torch or the config.
"""
