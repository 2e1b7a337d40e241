"""Datasets: from folders of labelled pictures to divided, checked pixels on disk."""
