"""Networks: the catalogue, three classics as in their papers, and pretrained weights. Reached by workers only."""
