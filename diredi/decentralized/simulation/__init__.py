"""Simulate federated learning of hundreds to thousands of clients on one machine, without a process for each.

    result = simulate(recipe, module, load("digits"), shards, Path("runs/digits"), EngineRecipe(workers=4))

`recipe` needs no torch; `simulate` is in `diredi.decentralized.simulation.simulate`. Metrics depend on the recipe and
the data alone: on equal machines, neither the number of workers nor an interruption changes a bit of them.
"""
