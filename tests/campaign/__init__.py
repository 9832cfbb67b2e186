"""Campaigns: several consumer processes on real Kafka that are stopped, killed and cut off, and a judge.

`pytest -m campaign` runs them at sizes for every day, `RKC_CAMPAIGN=full pytest -m campaign -s` at the sizes of
docs/campaigns.md, which holds what was seen. The figures of each run stand at the end of pytest's output.

worker
    The program that each consumer process runs; its `Plan` comes as JSON.
crew
    `Crew`: starts, stops and kills such processes and follows their file of evidence.
evidence
    What handlers and events wrote, as `Run` and `End`; `Follower` reads the file while it grows.
commits
    Every commit that the group's log holds, with the offset map decoded: read from the broker's own topic.
judge
    Decides from these alone what was lost, run twice without a reason, run early, or committed too early.
memory
    `Memory` samples a process's resident memory.
sizes
    `pick(daily, full)`.
"""
