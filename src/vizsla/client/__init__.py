"""The verbs by REST: for each noun of `vizsla.api` its functions of the same names, on a server. Needs no database."""
