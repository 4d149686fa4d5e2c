"""What DiReDi is compared with: federated averaging, in which weights of every round go up and down."""

from world import models, quick, scenes

import diredi

data, (_, student) = scenes("presumed"), models()
recipe = diredi.TrainRecipe.of(quick(epochs=1))
clients = [
    diredi.DetectorClient(student.expand_classes(student.labels), data.with_labels(student.labels).train[i::2], recipe)
    for i in range(2)
]
strategy = diredi.create_strategy(diredi.StrategyRecipe(kind="fedavg", learning_rate=0.01))
federation = diredi.Federation(strategy, clients, clients[0].initial_state())
for number in range(2):
    federation.run_round(number)
    model = clients[0].load(federation.client_state(0))
    print(f"round {number}: {federation.bytes_up:,} bytes up so far, {diredi.evaluate(model, data)}")
