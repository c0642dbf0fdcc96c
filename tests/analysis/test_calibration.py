"""The error rates that the analysis promises, held by simulation (slow)."""

import pytest
from support import calibrated

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", calibrated.PARTS)
def test_rates_stay_within_their_bounds(part: str) -> None:
    rates = list(calibrated.PARTS[part]())
    assert rates
    broken = [f"{rate.scenario}: {rate.what}, {rate.times} of {rate.of}" for rate in rates if not rate.holds]
    assert not broken, "\n".join(broken)


def test_the_bounds_can_be_broken() -> None:
    assert not calibrated.Rate("", "", 160, 2000, 0.05).holds
    assert not calibrated.Rate("", "", 1500, 2000, 0.8, least=True).holds
    assert calibrated.Rate("", "", 110, 2000, 0.05).holds
