"""Networks: the catalogue, classics, files of users, pretrained weights, drawings. Mostly reached by workers only."""
