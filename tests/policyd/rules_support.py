"""Rules with a store that is a dictionary, asked as Postfix asks."""

from __future__ import annotations

from collections.abc import Sequence

from mailward.model.accounts import Account
from mailward.model.limits import CounterKey, Outcome
from mailward.policy.limits import Limit, RuleSet
from mailward.policy.ratelimit import charge
from policyd.attempts import Attempts
from policyd.rules import Decision, Plan, Rules

NOW = 1_767_225_600.0
ALICE = "alice@example.com"


class Policy:
    """policyd without its sockets: plan, charge, decide, and keep what was charged."""

    def __init__(self, limits: Sequence[Limit] = (), rule_set: RuleSet | None = None) -> None:
        self.rules = Rules(rule_set or RuleSet(tuple(limits)))
        self.attempts = Attempts()
        self.accounts: dict[str, Account] = {}
        self.values: dict[CounterKey, bytes] = {}
        self.now = NOW
        self.plans: list[Plan] = []

    def ask(self, stage: str = "RCPT", **attributes: str) -> Decision:
        """Ask once; `login` is the SASL login."""
        plan = self.plan(stage, **attributes)
        outcome: Outcome | None = Outcome(True, ())
        if plan.charging.charges or plan.charging.sent:
            outcome, changes = charge(plan.charging, self.values, self.now)
            self.values.update({key: kept.value for key, kept in changes.items()})
        decision = plan.decide(outcome)
        assert outcome is not None
        if outcome.is_charged:
            self.attempts.charged(plan, outcome)
        return decision

    def plan(self, stage: str = "RCPT", **attributes: str) -> Plan:
        """Say what a request costs, and leave it at that."""
        if "login" in attributes:
            attributes["sasl_username"] = attributes.pop("login")
        asked = {"request": "smtpd_access_policy", "protocol_state": stage, "recipient_count": "0", **attributes}
        plan = self.rules.plan(asked, self.now, self.accounts, self.attempts)
        self.plans.append(plan)
        return plan

    def costs(self) -> list[int]:
        """Return what the last request cost, charge by charge."""
        return [charge.cost for charge in self.plans[-1].charging.charges]

    def send(self, instance: str, *recipients: str, login: str = ALICE, size: str = "1000") -> list[str]:
        """Send a message, asked of at every stage; return the actions' first words."""
        same = {"instance": instance, "login": login, "size": size}
        actions = [self.ask("RCPT", recipient=recipient, **same).action for recipient in recipients]
        taken = sum(action == "DUNNO" for action in actions)
        if taken:
            only = recipients[actions.index("DUNNO")] if taken == 1 else ""
            after = {**same, "recipient": only, "recipient_count": str(taken), "queue_id": "4ABC"}
            actions += [self.ask(stage, **after).action for stage in ("DATA", "END-OF-MESSAGE")]
        return [action.partition(" ")[0] for action in actions]
