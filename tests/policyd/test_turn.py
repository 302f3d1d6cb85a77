"""What comes in one turn of the loop is charged in one call, and everybody gets what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mailward.model.limits import Charge, Charging, CounterKey, Outcome, Reading
from policyd.turn import MAX_BATCH, Turn


def charging(number: int) -> Charging:
    return Charging((Charge(CounterKey("all", "limit"), (), cost=number),))


def outcome(one: Charging) -> Outcome:
    return Outcome(True, (Reading((one.charges[0].cost,)),))


class Ledger:
    """Charges everything, and remembers in which batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.bugs = 0

    def charge(self, chargings: Sequence[Charging]) -> list[Outcome] | None:
        self.batches.append(len(chargings))
        return [outcome(one) for one in chargings]

    def away(self, chargings: Sequence[Charging]) -> list[Outcome] | None:
        self.batches.append(len(chargings))
        return None

    def broken(self, chargings: Sequence[Charging]) -> list[Outcome] | None:
        raise RuntimeError("a bug")

    def count_bug(self) -> None:
        self.bugs += 1


def test_requests_of_one_turn_are_charged_together_and_each_gets_its_own_outcome() -> None:
    ledger = Ledger()

    async def ask() -> list[Outcome | None]:
        turn = Turn(ledger.charge, ledger.count_bug)
        return list(await asyncio.gather(*(turn.charged(charging(number)) for number in range(5))))

    assert asyncio.run(ask()) == [outcome(charging(number)) for number in range(5)]
    assert ledger.batches == [5]


def test_requests_of_two_turns_are_charged_apart() -> None:
    ledger = Ledger()

    async def ask() -> None:
        turn = Turn(ledger.charge, ledger.count_bug)
        await turn.charged(charging(1))
        await asyncio.gather(turn.charged(charging(2)), turn.charged(charging(3)))

    asyncio.run(ask())
    assert ledger.batches == [1, 2]


def test_a_crowd_is_charged_in_several_batches() -> None:
    ledger = Ledger()

    async def ask() -> list[Outcome | None]:
        turn = Turn(ledger.charge, ledger.count_bug)
        return list(await asyncio.gather(*(turn.charged(charging(number)) for number in range(2 * MAX_BATCH + 1))))

    assert asyncio.run(ask())[-1] == outcome(charging(2 * MAX_BATCH))
    assert ledger.batches == [MAX_BATCH, MAX_BATCH, 1]


def test_where_nobody_can_count_everybody_learns_it() -> None:
    ledger = Ledger()

    async def ask() -> list[Outcome | None]:
        turn = Turn(ledger.away, ledger.count_bug)
        return list(await asyncio.gather(turn.charged(charging(1)), turn.charged(charging(2))))

    assert asyncio.run(ask()) == [None, None]
    assert ledger.bugs == 0


def test_a_bug_in_counting_leaves_nobody_without_an_answer() -> None:
    ledger = Ledger()

    async def ask() -> Outcome | None:
        return await Turn(ledger.broken, ledger.count_bug).charged(charging(1))

    assert asyncio.run(ask()) is None
    assert ledger.bugs == 1


def test_a_bug_in_one_answer_is_not_the_others() -> None:
    ledger = Ledger()

    def fail(_outcome: Outcome | None) -> None:
        raise RuntimeError("a bug")

    async def ask() -> Outcome | None:
        turn = Turn(ledger.charge, ledger.count_bug)
        turn.charge(charging(1), fail)
        return await turn.charged(charging(2))

    assert asyncio.run(ask()) == outcome(charging(2))
    assert ledger.bugs == 1


def test_who_has_gone_meanwhile_disturbs_nobody() -> None:
    ledger = Ledger()

    async def ask() -> Outcome | None:
        turn = Turn(ledger.charge, ledger.count_bug)
        gone = asyncio.ensure_future(turn.charged(charging(1)))
        await asyncio.sleep(0)
        gone.cancel()
        return await turn.charged(charging(2))

    assert asyncio.run(ask()) == outcome(charging(2))
    assert ledger.bugs == 0
