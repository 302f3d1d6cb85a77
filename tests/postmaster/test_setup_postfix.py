"""What `mailward setup` plans for a Postfix: a row for each trap, on values alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from postmaster.setup.change import MainSetting, Plan, ServiceSetting, Weight
from postmaster.setup.postfix_facts import PostfixFacts
from tests.postmaster.setting_up import (
    ALL,
    GREYLIST,
    POLICYD,
    PORT_25,
    SIGN,
    SUBMISSION,
    VERIFY,
    after,
    findings,
    new_values,
    plan,
    postfix,
)

MILTERS, RECIPIENTS, WHOLE = "smtpd_milters", "smtpd_recipient_restrictions", "smtpd_end_of_data_restrictions"
ON_25, AT_SUBMISSION, REINJECTED = "smtp/inet", "submission/inet", "127.0.0.1:10025/inet"
JUDGED, SIGNED = "$mailward_auth_verify,$mailward_greylist", "$mailward_dkim_sign"
ASKED = "check_policy_service,$mailward_policyd_submission"
LATE = "check_policy_service $mailward_policyd"
OPENDKIM, OPENDMARC = "inet:localhost:8891", "unix:opendmarc/opendmarc.sock"
USUAL = "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"
LOGIN = {"smtpd_sasl_auth_enable": "yes"}
PIPED = {"spam/unix": "pipe"}


def with_filter(options: Mapping[str, str] | None = None) -> dict[str, Mapping[str, str]]:
    """Return services with one that takes mail back from a content filter."""
    return {**PORT_25, **SUBMISSION, REINJECTED: {"content_filter": "", **(options or {})}}


# A Postfix, what is set of it where, and what is not.
PLANNED: dict[str, tuple[PostfixFacts, dict[str, str | None]]] = {
    "plain": (
        postfix(),
        {
            f"{ON_25} {MILTERS}": JUDGED,
            f"{AT_SUBMISSION} {MILTERS}": SIGNED,
            f"{AT_SUBMISSION} milter_macro_daemon_name": "ORIGINATING",
            f"{AT_SUBMISSION} {RECIPIENTS}": ASKED,
            f"{AT_SUBMISSION} {WHOLE}": ASKED,
            "non_smtpd_milters": SIGNED,
            "internal_mail_filter_classes": "bounce",
            RECIPIENTS: LATE,
            MILTERS: None,
        },
    ),
    "postscreen-hands-on-to-pass": (
        postfix(services={"smtp/inet": {}, "smtpd/pass": {}, **SUBMISSION}, programs={"smtp/inet": "postscreen"}),
        {f"{ON_25} {MILTERS}": None, f"smtpd/pass {MILTERS}": JUDGED},
    ),
    "a-null-client": (
        postfix({"inet_interfaces": "loopback-only"}, PORT_25),
        {f"{ON_25} {MILTERS}": SIGNED, "mailward_greylist": None, "non_smtpd_milters": SIGNED},
    ),
    "behind-a-proxy-of-this-machine": (
        postfix({"inet_interfaces": "loopback-only", "smtpd_upstream_proxy_protocol": "haproxy"}),
        {f"{ON_25} {MILTERS}": JUDGED},
    ),
    "several-ports-for-strangers": (
        postfix(services={**PORT_25, "2525/inet": {}, **SUBMISSION}),
        {f"{ON_25} {MILTERS}": JUDGED, f"2525/inet {MILTERS}": JUDGED},
    ),
    "submissions-and-smtps": (
        postfix(services={**PORT_25, "submissions/inet": LOGIN, "smtps/inet": LOGIN, "465/inet": LOGIN}),
        {f"{name}/inet {MILTERS}": SIGNED for name in ("submissions", "smtps", "465")},
    ),
    "submission-at-an-unusual-port": (
        postfix(services={**PORT_25, "127.0.0.1:5870/inet": SUBMISSION[AT_SUBMISSION]}),
        {f"127.0.0.1:5870/inet {MILTERS}": SIGNED},
    ),
    "reinjection-inherits-nothing": (
        postfix({"content_filter": "smtp-amavis:[127.0.0.1]:10024"}, with_filter()),
        {f"{REINJECTED} {MILTERS}": None, f"{REINJECTED} {RECIPIENTS}": "", f"{REINJECTED} {WHOLE}": None},
    ),
    "reinjection-by-another-machine": (
        postfix(
            {"content_filter": "smtp:[192.0.2.7]:10024"},
            {**PORT_25, **SUBMISSION, "10025/inet": {"content_filter": "", RECIPIENTS: "permit_mynetworks,reject"}},
        ),
        {f"10025/inet {MILTERS}": None, f"10025/inet {RECIPIENTS}": None},
    ),
    "a-port-that-anybody-may-use-is-for-strangers": (
        postfix({RECIPIENTS: USUAL}, {**PORT_25, **SUBMISSION, "2525/inet": {"content_filter": ""}}),
        {f"2525/inet {MILTERS}": JUDGED},
    ),
    "reinjection-keeps-what-main-had": (
        postfix({RECIPIENTS: USUAL}, with_filter()),
        {f"{REINJECTED} {RECIPIENTS}": USUAL.replace(" ", ""), RECIPIENTS: f"{USUAL}, {LATE}"},
    ),
    "reinjection-with-its-own-list": (
        postfix(services=with_filter({RECIPIENTS: "permit_mynetworks,reject", MILTERS: ""})),
        {f"{REINJECTED} {RECIPIENTS}": None, f"{REINJECTED} {MILTERS}": None},
    ),
    "reinjection-is-freed-of-ours": (
        postfix({MILTERS: "$mailward_auth_verify"}, with_filter()),
        {f"{REINJECTED} {MILTERS}": ""},
    ),
    "users-mail-that-a-filter-gives-back": (
        postfix(
            {**LOGIN, "content_filter": "amavis:[127.0.0.1]:10024"},
            with_filter({"milter_macro_daemon_name": "ORIGINATING", RECIPIENTS: "permit_mynetworks,reject"}),
        ),
        {f"{REINJECTED} {MILTERS}": None, f"{REINJECTED} {RECIPIENTS}": None, f"{REINJECTED} {WHOLE}": None},
    ),
    "networks-whose-mail-no-milter-sees": (
        postfix(
            {**LOGIN, RECIPIENTS: USUAL},
            {
                ON_25: {"smtpd_sasl_auth_enable": "no"},
                "590/inet": {"smtpd_client_restrictions": "permit_mynetworks,reject", MILTERS: ""},
            },
        ),
        {f"590/inet {MILTERS}": None, RECIPIENTS: f"{USUAL}, {LATE}", f"590/inet {RECIPIENTS}": USUAL.replace(" ", "")},
    ),
    "a-filter-that-gives-back-by-sendmail": (
        postfix(services={ON_25: {"content_filter": "spam"}, **SUBMISSION, "spam/unix": {}}, programs=PIPED),
        {"non_smtpd_milters": None, "internal_mail_filter_classes": None, f"{AT_SUBMISSION} {MILTERS}": SIGNED},
    ),
    "what-it-gives-back-was-signed-until-now": (
        postfix(
            {"content_filter": "spam:", "non_smtpd_milters": f"unix:x/x.sock, {SIGNED}"},
            {**PORT_25, "spam/unix": {}},
            PIPED,
        ),
        {"non_smtpd_milters": "unix:x/x.sock"},
    ),
    "a-filter-that-gives-back-to-an-smtpd": (
        postfix({"content_filter": "spam"}, {**with_filter(), "spam/unix": {}}, PIPED),
        {"non_smtpd_milters": SIGNED},
    ),
    "a-permit-would-end-the-list": (
        postfix(services={**PORT_25, AT_SUBMISSION: {**LOGIN, RECIPIENTS: "permit_sasl_authenticated,reject"}}),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},permit_sasl_authenticated,reject"},
    ),
    "white-space-in-a-list": (
        postfix(services={**PORT_25, AT_SUBMISSION: {**LOGIN, RECIPIENTS: "permit_sasl_authenticated, reject"}}),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},permit_sasl_authenticated,reject"},
    ),
    "syntax-first-then-the-call": (
        postfix(
            services={
                AT_SUBMISSION: {**LOGIN, RECIPIENTS: "reject_non_fqdn_recipient,permit_sasl_authenticated,reject"}
            }
        ),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"reject_non_fqdn_recipient,{ASKED},permit_sasl_authenticated,reject"},
    ),
    "before-any-permit": (
        postfix(services={AT_SUBMISSION: {**LOGIN, RECIPIENTS: "permit_inet_interfaces,permit_sasl_authenticated"}}),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},permit_inet_interfaces,permit_sasl_authenticated"},
    ),
    "a-table-in-braces": (
        postfix(
            services={
                AT_SUBMISSION: {**LOGIN, RECIPIENTS: "check_x inline:{ a=b, {c = d} }, permit_sasl_authenticated"}
            }
        ),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"check_x,inline:{{a=b,{{c=d}}}},{ASKED},permit_sasl_authenticated"},
    ),
    "debians-mua-restrictions": (
        postfix(
            {"mua_recipient_restrictions": "permit_sasl_authenticated, reject"},
            {**PORT_25, AT_SUBMISSION: {**LOGIN, RECIPIENTS: "$mua_recipient_restrictions"}},
        ),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},$mua_recipient_restrictions", "mua_recipient_restrictions": None},
    ),
    "before-a-class-that-permits": (
        postfix(
            {
                "smtpd_restriction_classes": "users, others",
                "users": "reject_non_fqdn_sender, permit_sasl_authenticated",
            },
            {**PORT_25, AT_SUBMISSION: {**LOGIN, RECIPIENTS: "others,users,reject"}},
        ),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"others,{ASKED},users,reject"},
    ),
    "an-empty-list-of-its-own": (
        postfix(services={**PORT_25, AT_SUBMISSION: {**LOGIN, RECIPIENTS: ""}}),
        {f"{AT_SUBMISSION} {RECIPIENTS}": ASKED},
    ),
    "submission-inherits-mains-list": (
        postfix({RECIPIENTS: USUAL}),
        {f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},{USUAL.replace(' ', '')}"},
    ),
    "strangers-are-counted-last": (
        postfix({RECIPIENTS: f"{USUAL}, reject_rbl_client zen.example"}),
        {RECIPIENTS: f"{USUAL}, reject_rbl_client zen.example, {LATE}"},
    ),
    "before-a-reject-at-the-end": (
        postfix({RECIPIENTS: "permit_auth_destination, reject"}),
        {RECIPIENTS: f"permit_auth_destination, {LATE}, reject"},
    ),
    "before-a-warning-reject": (
        postfix({RECIPIENTS: "permit_auth_destination, warn_if_reject reject"}),
        {RECIPIENTS: f"permit_auth_destination, {LATE}, warn_if_reject reject"},
    ),
    "before-quota-status": (
        postfix({RECIPIENTS: f"{USUAL}, check_policy_service unix:private/quota-status"}),
        {RECIPIENTS: f"{USUAL}, {LATE}, check_policy_service unix:private/quota-status"},
    ),
    "before-quota-status-at-its-port": (
        postfix({RECIPIENTS: f"{USUAL}, check_policy_service inet:127.0.0.1:12340"}),
        {RECIPIENTS: f"{USUAL}, {LATE}, check_policy_service inet:127.0.0.1:12340"},
    ),
    "logins-on-port-25-are-counted": (
        postfix({**LOGIN, RECIPIENTS: USUAL}, PORT_25),
        {RECIPIENTS: f"{LATE}, {USUAL}", f"{ON_25} {MILTERS}": f"{JUDGED},{SIGNED}"},
    ),
    "logins-on-port-25-beside-submission-are-signed": (
        postfix(LOGIN),
        {f"{ON_25} {MILTERS}": f"{JUDGED},{SIGNED}", f"{AT_SUBMISSION} {MILTERS}": SIGNED},
    ),
    "no-submission-service-at-all": (postfix(services=PORT_25), {f"{ON_25} {MILTERS}": f"{JUDGED},{SIGNED}"}),
    "a-service-with-its-own-list": (
        postfix({RECIPIENTS: USUAL}, {ON_25: {RECIPIENTS: "reject_unauth_destination"}}),
        {f"{ON_25} {RECIPIENTS}": "reject_unauth_destination," + LATE.replace(" ", ","), RECIPIENTS: None},
    ),
    "others-stand-between": (
        postfix({MILTERS: "unix:spamass/spamass.sock"}),
        {
            f"{ON_25} {MILTERS}": f"{JUDGED},unix:spamass/spamass.sock",
            f"{AT_SUBMISSION} {MILTERS}": f"unix:spamass/spamass.sock,{SIGNED}",
            MILTERS: None,
        },
    ),
    "wrong-order-is-put-right": (
        postfix(services={ON_25: {MILTERS: "unix:x/x.sock,$mailward_greylist,$mailward_auth_verify"}, **SUBMISSION}),
        {f"{ON_25} {MILTERS}": f"{JUDGED},unix:x/x.sock"},
    ),
    "ours-written-out-is-recognised": (
        postfix(
            services={ON_25: {MILTERS: "{ unix:/mailward/auth-verify.sock, default_action=accept }"}, **SUBMISSION}
        ),
        {f"{ON_25} {MILTERS}": JUDGED},
    ),
    "the-signer-on-port-25-stays": (
        postfix(services={ON_25: {MILTERS: "$mailward_dkim_sign"}, **SUBMISSION}),
        {f"{ON_25} {MILTERS}": f"{JUDGED},{SIGNED}"},
    ),
    "groups-in-braces-lose-white-space": (
        postfix({MILTERS: "{ unix:x/x.sock, default_action = accept }"}),
        {f"{ON_25} {MILTERS}": f"{JUDGED},{{unix:x/x.sock,default_action=accept}}"},
    ),
    "before-queue-filter-sees-no-content": (
        postfix(services={ON_25: {"smtpd_proxy_filter": "127.0.0.1:10024"}, **SUBMISSION}),
        {f"{ON_25} {MILTERS}": "$mailward_greylist"},
    ),
    "a-milter-for-local-mail-may-reject": (
        postfix({"non_smtpd_milters": "unix:clamav/milter.sock"}),
        {"non_smtpd_milters": f"unix:clamav/milter.sock, {SIGNED}", "internal_mail_filter_classes": None},
    ),
    "other-classes-stay": (
        postfix({"internal_mail_filter_classes": "notify"}),
        {"internal_mail_filter_classes": "notify, bounce"},
    ),
    "characters-are-added-to": (postfix({"message_strip_characters": "\\1"}), {"message_strip_characters": "\\1\\0"}),
    "a-limit-of-their-own-stays": (postfix({"smtp_line_length_limit": "2048"}), {"smtp_line_length_limit": None}),
    "another-origin-name-stays": (
        postfix(services={AT_SUBMISSION: {**LOGIN, "milter_macro_daemon_name": "USERS"}}),
        {f"{AT_SUBMISSION} milter_macro_daemon_name": None},
    ),
    "tuned-parameters-stay": (
        postfix({"mailward_greylist": "{ unix:mailward/greylist.sock, command_timeout=20s, default_action=accept }"}),
        {"mailward_greylist": None},
    ),
}


@pytest.mark.parametrize(("facts", "expected"), PLANNED.values(), ids=PLANNED)
def test_settings_are_planned(facts: PostfixFacts, expected: dict[str, str | None]) -> None:
    found = new_values(plan(facts))
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(("facts", "_expected"), PLANNED.values(), ids=PLANNED)
def test_a_second_run_plans_nothing(facts: PostfixFacts, _expected: object) -> None:
    for daemons in (ALL, (SIGN,), (VERIFY, GREYLIST), (POLICYD,)):
        once = after(facts, plan(facts, *daemons))
        assert plan(once, *daemons).changes == ()


@pytest.mark.parametrize(("facts", "_expected"), PLANNED.values(), ids=PLANNED)
def test_one_daemon_after_the_other_is_as_all_at_once(facts: PostfixFacts, _expected: object) -> None:
    step = facts
    for daemon in (POLICYD, GREYLIST, SIGN, VERIFY):
        step = after(step, plan(step, daemon))
    assert plan(step).changes == ()


def test_only_leaves_alone_what_is_set_up_for_others() -> None:
    facts = postfix()
    once = after(facts, plan(facts, VERIFY, POLICYD))
    found = new_values(plan(once, SIGN))
    assert {name for name in found if name.startswith(ON_25)} == set()
    assert RECIPIENTS not in found


PEERS = {
    MILTERS: f"{OPENDKIM}, {OPENDMARC}",
    "non_smtpd_milters": "$smtpd_milters",
    RECIPIENTS: f"{USUAL}, check_policy_service unix:private/policyd-spf, check_policy_service inet:127.0.0.1:10023",
    "smtpd_sender_restrictions": "check_policy_service { unix:ratelimit/policy, default_action=DUNNO }",
}


def test_peers_stay_in_the_right_order_and_are_named() -> None:
    made = plan(postfix(PEERS))
    found = new_values(made)
    assert found[f"{ON_25} {MILTERS}"] == f"{JUDGED},{OPENDKIM},{OPENDMARC}"
    assert found[f"{AT_SUBMISSION} {MILTERS}"] == f"{OPENDKIM},{OPENDMARC},{SIGNED}"
    for name in ("OpenDKIM", "OpenDMARC", "policyd-spf", "postgrey", "policyd-rate-limit"):
        assert name in findings(made, Weight.WARNING)


def test_replace_takes_peers_out_everywhere() -> None:
    made = plan(postfix(PEERS), is_replacing=True)
    found = new_values(made)
    expected = {
        f"{ON_25} {MILTERS}": JUDGED,
        f"{AT_SUBMISSION} {MILTERS}": SIGNED,
        f"{AT_SUBMISSION} {RECIPIENTS}": f"{ASKED},{USUAL.replace(' ', '')}",
        MILTERS: "",
        "non_smtpd_milters": SIGNED,
        "internal_mail_filter_classes": "bounce",
        "smtpd_sender_restrictions": "",
        RECIPIENTS: f"{USUAL}, {LATE}",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert findings(made, Weight.WARNING) == ""


def test_replace_leaves_a_verifier_where_only_the_signer_is_wanted() -> None:
    found = new_values(plan(postfix(PEERS), SIGN, is_replacing=True))
    assert f"{ON_25} {MILTERS}" not in found
    assert MILTERS not in found
    assert found[f"{AT_SUBMISSION} {MILTERS}"] == f"{OPENDMARC},{SIGNED}"


NAMED = {"dkim": OPENDKIM, "dmarc": OPENDMARC, MILTERS: "$dkim, ${dmarc}", "non_smtpd_milters": "$dkim"}


def gone(made: Plan) -> set[str]:
    return {change.name for change in made.changes if isinstance(change, MainSetting) and change.new is None}


def test_replace_takes_out_the_names_that_peers_had_been_given() -> None:
    made = plan(postfix(NAMED), is_replacing=True)
    assert gone(made) == {"dkim", "dmarc"}
    assert plan(after(postfix(NAMED), made), is_replacing=True).changes == ()


def test_a_name_that_is_still_in_use_stays() -> None:
    facts = postfix({**NAMED, "other": "$dkim"})
    assert gone(plan(facts, is_replacing=True)) == {"dmarc"}
    assert gone(plan(facts)) == set()


def test_a_peer_that_a_class_asks_is_named() -> None:
    facts = postfix({"smtpd_restriction_classes": "grey", "grey": "check_policy_service inet:127.0.0.1:10023"})
    assert "postgrey is asked, too, by grey of smtpd_restriction_classes" in findings(plan(facts), Weight.WARNING)
    assert "postgrey" not in findings(plan(facts, VERIFY), Weight.WARNING)


def test_replace_leaves_rspamd() -> None:
    made = plan(postfix({MILTERS: "inet:localhost:11332"}), is_replacing=True)
    assert new_values(made)[f"{ON_25} {MILTERS}"] == f"{JUDGED},inet:localhost:11332"
    assert "rspamd" in findings(made, Weight.NOTE)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("unix:private/policy-spf", "policyd-spf"),
        ("unix:private/policyd-spf", "policyd-spf"),
        ("unix:ratelimit/policy", "policyd-rate-limit"),
        ("local:opendkim/opendkim.sock", "OpenDKIM"),
        ("inet:127.0.0.1:12301", "OpenDKIM"),
        ("inet:localhost:8892", "dkimpy-milter"),
        ("inet:[::1]:10023", "postgrey"),
        ("unix:/run/rspamd/milter.sock", "rspamd"),
        ("local:milter-greylist/milter-greylist.sock", "milter-greylist"),
        ("inet:127.0.0.1:10040", "postfwd"),
        ("inet:127.0.0.1:7777", "iRedAPD"),
    ],
)
def test_peers_are_known_by_their_addresses(address: str, peer: str) -> None:
    call = {RECIPIENTS: f"check_policy_service {address}", MILTERS: address}
    said = [finding.text for finding in plan(postfix(call)).findings]
    assert any(text.startswith(f"{peer} is asked, too") for text in said)


# A Postfix, the weight of what is said, a piece of it.
TOLD: dict[str, tuple[PostfixFacts, Weight, str]] = {
    "no-milters": (postfix({"receive_override_options": "no_milters"}), Weight.WARNING, "no milter is asked there"),
    "no-milters-for-sendmail": (
        postfix({"receive_override_options": "no_milters"}, {**PORT_25, "pickup/unix": {}}, {"pickup/unix": "pickup"}),
        Weight.WARNING,
        "pickup/unix: receive_override_options has no_milters: mail of sendmail(1) is not signed",
    ),
    "a-filter-that-gives-back-by-sendmail": (
        postfix({"content_filter": "spam"}, {**PORT_25, "spam/unix": {}}, PIPED),
        Weight.WARNING,
        "the content filter spam gives strangers' mail back by sendmail(1)",
    ),
    "a-filter-for-users-alone": (
        postfix(services={AT_SUBMISSION: {**LOGIN, "content_filter": "smtp-amavis:[127.0.0.1]:10026"}}),
        Weight.NOTE,
        "amavisd signs a second time",
    ),
    "a-null-client": (
        postfix({"inet_interfaces": "loopback-only"}, PORT_25),
        Weight.NOTE,
        "no stranger reaches this Postfix",
    ),
    "milter-maps": (postfix({"smtpd_milter_maps": "cidr:/etc/postfix/m"}), Weight.WARNING, "DISABLE"),
    "before-queue-filter": (
        postfix({"smtpd_proxy_filter": "127.0.0.1:10024"}, with_filter({"smtpd_proxy_filter": ""})),
        Weight.WARNING,
        "smtpd_proxy_filter",
    ),
    "content-filter": (postfix({"content_filter": "x:[127.0.0.1]:10024"}), Weight.NOTE, "before the filter sees it"),
    "postscreen-without-pass": (
        postfix(programs={"smtp/inet": "postscreen"}),
        Weight.WARNING,
        "no `smtpd pass`",
    ),
    "postscreen-with-deep-tests": (
        postfix(
            {"postscreen_pipelining_enable": "yes"},
            {"smtp/inet": {}, "smtpd/pass": {}},
            {"smtp/inet": "postscreen"},
        ),
        Weight.NOTE,
        "deep protocol tests",
    ),
    "nobody-can-log-in": (postfix(services=PORT_25), Weight.NOTE, "nobody can log in"),
    "programs-on-port-25": (postfix(), Weight.NOTE, "without a login"),
    "lines-that-are-cut": (postfix({"smtp_line_length_limit": "990"}), Weight.WARNING, "smtp_line_length_limit = 990"),
    "relaying-is-refused-late": (
        postfix({"smtpd_relay_before_recipient_restrictions": "no"}),
        Weight.NOTE,
        "counted before they are refused",
    ),
    "white-space-that-means-something": (
        postfix({MILTERS: "{ unix:x/x.sock, { default_action = 451 later } }"}),
        Weight.REFUSAL,
        "$my_name",
    ),
    "another-instance": (postfix({"multi_instance_directories": "/etc/postfix-out"}), Weight.NOTE, "/etc/postfix-out"),
    "no-smtpd": (postfix(services={}), Weight.REFUSAL, "has no smtpd"),
    "too-old": (postfix(defaults={"mail_version": "3.5.25"}), Weight.REFUSAL, "3.5.25 is too old"),
}


@pytest.mark.parametrize(("facts", "weight", "text"), TOLD.values(), ids=TOLD)
def test_what_is_seen_is_told(facts: PostfixFacts, weight: Weight, text: str) -> None:
    assert text in findings(plan(facts), weight)


def test_who_is_refused_before_policyd_is_asked_is_not_counted() -> None:
    facts = postfix({"smtpd_relay_before_recipient_restrictions": "no", RECIPIENTS: USUAL})
    assert "counted before" not in findings(plan(facts), Weight.NOTE)


def test_why_says_who_is_signed_for() -> None:
    def why(facts: PostfixFacts, *daemons: str) -> str:
        changes = plan(facts, *daemons).changes
        return next(each.why for each in changes if isinstance(each, ServiceSetting) and each.name == MILTERS)

    assert why(postfix(services=PORT_25)).endswith("behind the verifier; mail from the signer's `networks` is signed")
    assert why(postfix(LOGIN, PORT_25), SIGN) == "users who log in here are signed for"
    assert why(postfix(), GREYLIST) == "strangers are put off once"


def test_pickup_with_its_milters_is_no_reason_to_warn() -> None:
    services = {**PORT_25, "pickup/unix": {"receive_override_options": ""}}
    facts = postfix({"receive_override_options": "no_milters"}, services, {"pickup/unix": "pickup"})
    assert "sendmail(1)" not in findings(plan(facts), Weight.WARNING)


@pytest.mark.parametrize("weight", [Weight.WARNING, Weight.REFUSAL])
def test_a_plain_postfix_gives_no_reason_to_warn(weight: Weight) -> None:
    assert findings(plan(postfix()), weight) == ""


# Where a daemon listens, and what Postfix is told; None: that is refused.
ADDRESSES: dict[str, tuple[str, bool, str | None]] = {
    "in-the-queue-directory": ("unix:/var/spool/postfix/mailward/x.sock", True, "unix:mailward/x.sock"),
    "elsewhere-without-chroot": ("unix:/run/mailward/x.sock", False, "unix:/run/mailward/x.sock"),
    "elsewhere-with-chroot": ("unix:/run/mailward/x.sock", True, None),
    "a-port": ("inet:127.0.0.1:8899", True, "inet:127.0.0.1:8899"),
    "a-port-of-ipv6": ("inet:[::1]:8899", True, "inet:[::1]:8899"),
    "a-comma-in-the-path": ("unix:/var/spool/postfix/a,b.sock", True, None),
    "a-dollar-in-the-path": ("unix:/var/spool/postfix/$a.sock", True, None),
    "a-line-break-in-the-path": ("unix:/var/spool/postfix/a\nb.sock", True, None),
}


@pytest.mark.parametrize(("listens", "is_chrooted", "told"), ADDRESSES.values(), ids=ADDRESSES)
def test_postfix_is_told_where_a_daemon_listens(listens: str, is_chrooted: bool, told: str | None) -> None:
    made = plan(postfix(is_chrooted=is_chrooted), POLICYD, sockets={POLICYD: listens})
    assert bool(findings(made, Weight.REFUSAL)) == (told is None)
    if told is not None:
        assert new_values(made)["mailward_policyd"].startswith(f"{{ {told}, timeout=3s")
        assert new_values(made)["mailward_policyd_submission"].startswith(f"{{ {told}, timeout=3s")


def test_another_queue_directory_is_not_reached() -> None:
    made = plan(postfix({"queue_directory": "/var/spool/postfix-out"}), VERIFY)
    assert "outside of /var/spool/postfix-out/" in findings(made, Weight.REFUSAL)
