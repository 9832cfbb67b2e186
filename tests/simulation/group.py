"""The fake group coordinator: who owns what, generations, and rebalances in both styles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriable_kafka_client.core.protocol import Place

if TYPE_CHECKING:
    from tests.simulation.member import Member
    from tests.simulation.world import World

__all__ = ["Group"]

SESSION_SECONDS = 45.0


class Group:
    """One group. Eager: everybody gives up everything first. Cooperative: only what moves is given up."""

    def __init__(self, world: World, places: list[Place]) -> None:
        self._world = world
        self._places = places
        self._owner: dict[Place, Member] = {}
        self._members: list[Member] = []
        self._waiting: list[Member] = []  # who still has to give something up
        self._rebalancing = False
        self._wanted = False
        self._missing: list[tuple[float, Member]] = []  # crashed: when that is noticed
        self._kept: list[tuple[float, Member]] = []  # they went without a word: when their sessions are over
        self.held_until = 0.0  # somebody drains until then
        self.generation = 0

    @property
    def settled(self) -> bool:
        """Whether everybody has what it should have."""
        return not (self._wanted or self._rebalancing or self._missing or self._kept)

    @property
    def rebalancing(self) -> bool:
        return self._rebalancing

    def has(self, member: Member) -> bool:
        return member in self._members

    def join(self, member: Member) -> None:
        self._members.append(member)
        self._wanted = True

    def leave(self, member: Member) -> None:
        """The member is a member no longer, whether it knows or not."""
        member.generation = -1
        if member in self._members:
            self._members.remove(member)
        if member in self._waiting:
            self._waiting.remove(member)
        self._owner = {place: owner for place, owner in self._owner.items() if owner is not member}
        self._wanted = True

    def crashed(self, member: Member, noticed_at: float) -> None:
        self._missing.append((noticed_at, member))

    def keep(self, member: Member) -> None:
        """The member went without a word: it counts until its session is over, and rebalances wait for it."""
        self._kept.append((self._world.mono + SESSION_SECONDS, member))

    def request(self) -> None:
        """Rebalance although nobody came or went."""
        self._wanted = True

    def gave_up(self, member: Member) -> None:
        """What the member was asked for is free."""
        if member in self._waiting:
            self._waiting.remove(member)

    def step(self) -> None:
        world = self._world
        for noticed_at, member in list(self._missing):
            if noticed_at <= world.mono:
                self._missing.remove((noticed_at, member))
                self.leave(member)
        for over_at, member in list(self._kept):
            if over_at <= world.mono:
                self._kept.remove((over_at, member))
                self.leave(member)
        if self._rebalancing:
            if not (self._waiting or self._kept or self._held_up) and world.mono >= self.held_until:
                self._complete()
        elif self._wanted and self._members and not (self._held_up or self._revoking):
            self._begin()

    @property
    def _revoking(self) -> bool:
        return any(member.revoke for member in self._members)

    @property
    def _held_up(self) -> bool:
        """Whether somebody does not answer."""
        return any(member.stalling.until is not None and not member.gone for member in self._members)

    def _begin(self) -> None:
        self._wanted, self._rebalancing = False, True
        random = self._world.random
        members = self._members
        moving: set[Place] = set()
        for place in self._places:
            owner = self._owner.get(place)
            if owner is None:
                continue
            fair = -(-len(self._places) // len(members))
            owned = sum(1 for other in self._owner.values() if other is owner) - sum(
                1 for other in moving if self._owner[other] is owner
            )
            if not self._world.settings.cooperative or owned > fair or random.random() < 0.2:
                moving.add(place)
        for member in list(members):
            losing = [place for place in self._places if place in moving and self._owner.get(place) is member]
            if not losing or member.gone:
                continue
            for place in losing:
                del self._owner[place]
            self._waiting.append(member)
            if member.evicted_until is None:
                member.begin_revoke(losing, "revoked")

    def _complete(self) -> None:
        self._rebalancing = False
        if not self._members:
            return
        self.generation += 1
        self._world.say(f"generation {self.generation}: {[member.name for member in self._members]}")
        free = [place for place in self._places if place not in self._owner]
        self._world.random.shuffle(free)
        given: dict[str, list[Place]] = {}
        able = [member for member in self._members if not (member.gone or member.leaving or member.reopening)]
        for place in free:
            if not able:
                self._wanted = True
                break
            poorest = min(able, key=lambda m: sum(1 for owner in self._owner.values() if owner is m))
            self._owner[place] = poorest
            given.setdefault(poorest.name, []).append(place)
        for member in self._members:
            member.generation = self.generation
            member.rebalanced()
            if member.name in given:
                member.assign(given[member.name])
