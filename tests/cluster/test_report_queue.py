"""Reports are sent in order, and nobody waits for them but the last."""

import threading

from support.processes import wait_for

from sweep.cluster.report_queue import Reports


def test_reports_are_sent_in_order_and_the_last_is_sent_by_who_gives_it() -> None:
    sent: list[tuple[dict[str, object], bool]] = []
    reports = Reports(lambda fields: sent.append((fields, threading.current_thread() is threading.main_thread())))
    for share in (0.1, 0.2):
        reports.add(share=share)
    reports.finish(trained=3)
    assert sent == [({"share": 0.1}, False), ({"share": 0.2}, False), ({"trained": 3}, True)]


def test_nobody_waits_for_a_report_that_is_not_taken() -> None:
    taken = threading.Event()
    reports = Reports(lambda fields: taken.wait(20) and None)
    reports.add(share=0.1)
    wait_for(lambda: not reports.behind(), 20)
    reports.add(share=0.2)
    assert reports.behind(), "it is being sent, and the second has to wait"
    reports.end()
    taken.set()
