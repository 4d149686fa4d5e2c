"""Hundreds to thousands of clients of federated learning on one machine, without a process for each.

    outcome = simulate(recipe, module, load("digits"), shards, Path("runs/digits"), EngineRecipe(workers=4))

`recipe` needs no torch; `simulate` is in `diredi.decentralized.simulation.simulate`. Metrics follow from the recipe and
the data alone: neither the number of workers nor a kill on the way changes a bit of them, on equal machines.
"""
