from datetime import UTC, datetime, timedelta

from diredi.rpc.convert import time_to
from diredi.rpc.v1 import cycles_pb2
from diredi_demo.timing import Clock, Stopwatch


def test_the_steps_of_a_cycle_come_from_its_own_history():
    clock = Clock()
    began = datetime.now(UTC)
    states = (("REQUESTED", 0), ("OFFERED", 1), ("OFFERED", 2), ("EXTRACTING", 3), ("UPLOADED", 63), ("RELEASED", 70))
    history = [
        cycles_pb2.Transition(
            state=cycles_pb2.CycleState.Value(f"CYCLE_STATE_{state}"), at=time_to(began + timedelta(seconds=at))
        )
        for state, at in states
    ]
    clock.add_cycle(cycles_pb2.Cycle(history=history), Stopwatch(clock))
    assert clock.seconds() == {"request": 1, "approve": 2, "extract": 60, "apply": 7}
    assert len(clock.spans) == 4, "a state that was noted twice is one step"


def test_steps_inside_a_state_are_told_only_when_there_are_several():
    watch = Stopwatch(Clock())
    watch.see("EXTRACTING", "tutor-2")
    assert watch.steps_in("EXTRACTING", 9.0) == []
    watch.see("EXTRACTING", "upload")
    (first, _, first_end), (second, second_begin, second_end) = watch.steps_in("EXTRACTING", 9.0)
    assert (first, second) == ("tutor-2", "upload")
    assert first_end == second_begin and second_end == 9.0


def test_a_step_that_ran_twice_counts_with_both():
    clock = Clock()
    clock.add("extract", 0.0, 2.0, "cycle")
    clock.add("extract", 5.0, 6.5, "cycle")
    assert clock.seconds() == {"extract": 3.5}
