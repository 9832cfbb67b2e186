"""Chaos: a group on three brokers, faults from one seed, and a checker that decides from what is written down.

`make chaos MINUTES=30 SEED=7 GUARANTEE=at_least_once` runs it; docs/chaos.md says how it is judged and what was seen.

orders
    What each message is meant to do: a pure function of seed and number, which producer, handler and checker share.
load, worker, handler
    The programs that send and that consume, and the handler; each event is one line, written with one `write()`.
proxy
    `Links`: TCP proxies before the brokers, which can be slow, stuck or cut.
crew, faults
    `ChaosCrew`: the members; `MemberLane` and `BrokerLane`: what is done to them, to brokers and to links.
run, evidence
    `run_chaos(plan, folder)`; `gather(…)` reads files and topics into `facts.Facts`.
facts, index, rules_messages, rules_members, checker
    `check(facts)`: a pure function of the facts; promises, violations, witnesses.
model, planting, plants_messages, plants_members
    Good facts, and violations to plant in them: the checker's own tests.
report
    The report in Markdown.
"""
