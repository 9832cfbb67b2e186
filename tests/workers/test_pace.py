"""How long slices are, and how many run side by side."""

from retriable_kafka_client.workers.pace import Pace


def settled(pace: Pace, seconds: float, slices: int = 200, length: int = 100) -> None:
    for _ in range(slices):
        pace.note(length, seconds * length)


def test_nothing_is_known_at_first() -> None:
    assert Pace(4, shares_interpreter=False).length(1_000_000) == 1


def test_slices_hold_five_milliseconds_of_cheap_work_and_at_most_500() -> None:
    pace = Pace(4, shares_interpreter=False)
    settled(pace, 0.000_1)
    assert 45 <= pace.length(1_000_000) <= 50
    settled(pace, 0.000_001)
    assert pace.length(1_000_000) == 500


def test_a_short_queue_is_shared_fairly() -> None:
    pace = Pace(4, shares_interpreter=False)
    settled(pace, 0.001)
    assert [pace.length(queued) for queued in (1, 4, 5, 400)] == [1, 1, 2, 5]


def test_a_queue_that_is_done_at_once_is_not_shared_out() -> None:
    pace = Pace(4, shares_interpreter=False)
    settled(pace, 0.000_001)
    assert [pace.length(queued) for queued in (1, 4, 5, 400)] == [1, 4, 5, 400]


def test_waiting_for_the_interpreter_does_not_shorten_the_slices_of_threads() -> None:
    pace = Pace(16, shares_interpreter=True)
    settled(pace, 0.000_001, length=500)
    for _ in range(50):
        pace.note(500, 0.005)
        pace.note(20, 0.005)
    assert pace.length(1_000_000) > 100


def test_one_peak_shortens_at_once_and_is_soon_forgotten() -> None:
    pace = Pace(4, shares_interpreter=False)
    settled(pace, 0.000_001)
    pace.note(1, 60.0)
    assert pace.length(1_000_000) == 1
    settled(pace, 0.000_001, slices=100)
    assert pace.length(1_000_000) > 100


def test_cheap_threads_that_fill_the_interpreter_run_one_slice_at_a_time() -> None:
    pace = Pace(16, shares_interpreter=True)
    settled(pace, 0.000_001)
    for turn in range(20):
        pace.note_cpu(0.02, turn * 0.021)
    assert pace.width == 1


def test_cheap_threads_that_wait_fan_out_again() -> None:
    pace = Pace(16, shares_interpreter=True)
    settled(pace, 0.000_1)
    for turn in range(20):
        pace.note_cpu(0.02, turn * 0.021)
    for turn in range(20, 40):
        pace.note_cpu(0.001, turn * 0.021)
    assert pace.width == 16


def test_slow_handlers_always_fan_out() -> None:
    pace = Pace(16, shares_interpreter=True)
    settled(pace, 0.01)
    for turn in range(20):
        pace.note_cpu(0.02, turn * 0.021)
    assert pace.width == 16


def test_processes_always_use_all_slots() -> None:
    pace = Pace(16, shares_interpreter=False)
    settled(pace, 0.000_001)
    for turn in range(20):
        pace.note_cpu(0.02, turn * 0.021)
    assert pace.width == 16
