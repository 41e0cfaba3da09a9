"""What is known of a sample while it waits for others."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from perception.runtime.waiting import Ticket

from perception.preprocess.contract import GridSpec
from perception.preprocess.grid import GridMap
from perception.runtime.networks import Encoded


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("pending", [True, False])
def test_a_sample_may_be_used_once_it_is_encoded_and_while_it_is(
    encoded: bool, pending: bool
) -> None:
    ticket = Ticket(arrived_ns=5, source_ns=3)
    if encoded:
        ticket.encoded = Encoded({}, GridMap.fit((32, 64), GridSpec(height=32, width=64)), 3)
    if pending:
        ticket.pending = Future()
    assert ticket.usable is (encoded or pending)
