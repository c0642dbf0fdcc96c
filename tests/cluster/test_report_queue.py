"""Reports are sent in order, and nobody waits for them but the last."""

import threading

from support.processes import wait_for

from sweep.cluster.messages import Message, Progress, Trained
from sweep.cluster.report_queue import Reports


def test_reports_are_sent_in_order_and_the_last_is_sent_by_who_gives_it() -> None:
    sent: list[tuple[Message, bool]] = []
    reports = Reports(lambda message: sent.append((message, threading.current_thread() is threading.main_thread())))
    for share in (0.1, 0.2):
        reports.add(Progress(share))
    reports.finish(Trained(3))
    assert sent == [(Progress(0.1), False), (Progress(0.2), False), (Trained(3), True)]


def test_nobody_waits_for_a_report_that_is_not_taken() -> None:
    taken = threading.Event()
    reports = Reports(lambda message: taken.wait(20) and None)
    reports.add(Progress(0.1))
    wait_for(lambda: not reports.behind(), 20)
    reports.add(Progress(0.2))
    assert reports.behind(), "it is being sent, and the second has to wait"
    reports.end()
    taken.set()
