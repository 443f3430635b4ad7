"""Where the lanes of a warp that parted at a branch meet again: at the branch's immediate post-dominator."""

from __future__ import annotations

PLAIN, BRANCH, RET, BARRIER = range(4)
"""Kinds of instructions, in column 1 of a row; column 0 holds the guard, 2 a branch's target, 3 the meeting point."""


def write_meeting_points(rows: list[list[int]]) -> None:
    """Writes into column 3 of every branch where its lanes meet again (len(rows) where they do not)."""
    starts = block_starts(rows)
    ends = [*starts[1:], len(rows)]
    leave = len(starts)
    parent = post_dominators(successors_of(rows, starts, ends), leave)
    for block, end in enumerate(ends):
        if rows[end - 1][1] == BRANCH:
            to = parent.get(block, leave)
            rows[end - 1][3] = starts[to] if to < leave else len(rows)


def block_starts(rows: list[list[int]]) -> list[int]:
    """The first instruction of every basic block, in order."""
    starts = {0}
    for index, row in enumerate(rows):
        if row[1] == BRANCH:
            starts |= {row[2], index + 1}
        elif row[1] == RET:
            starts.add(index + 1)
    return sorted(start for start in starts if start < len(rows))


def successors_of(rows: list[list[int]], starts: list[int], ends: list[int]) -> list[list[int]]:
    """The blocks that may follow each block; the last one stands for the end of the kernel."""
    block, leave = {start: index for index, start in enumerate(starts)}, len(starts)
    successors: list[list[int]] = []
    for end in ends:
        last, behind = rows[end - 1], block.get(end, leave)
        guarded = last[0] >= 0
        if last[1] == BRANCH:
            successors.append([block[last[2]], *([behind] if guarded else [])])
        elif last[1] == RET:
            successors.append([leave, *([behind] if guarded else [])])
        else:
            successors.append([behind])
    return [*successors, []]


def post_dominators(successors: list[list[int]], leave: int) -> dict[int, int]:
    """The immediate post-dominator of every block that reaches the end; iterated to a fixed point."""
    sequence = post_order(successors, leave)
    number = {block: index for index, block in enumerate(sequence)}
    parent = {leave: leave}

    def common(a: int, b: int) -> int:
        while a != b:
            while number[a] < number[b]:
                a = parent[a]
            while number[b] < number[a]:
                b = parent[b]
        return a

    changed = True
    while changed:
        changed = False
        for block in reversed(sequence):
            known = [after for after in successors[block] if after in parent]
            if block == leave or not known:
                continue
            best = known[0]
            for after in known[1:]:
                best = common(after, best)
            if parent.get(block) != best:
                parent[block], changed = best, True
    return parent


def post_order(successors: list[list[int]], leave: int) -> list[int]:
    """The blocks from which the end is reached, in post-order of a walk from the end backwards."""
    before: list[list[int]] = [[] for _ in successors]
    for block, after in enumerate(successors):
        for to in after:
            before[to].append(block)
    sequence, seen, stack = [], {leave}, [(leave, iter(before[leave]))]
    while stack:
        block, rest = stack[-1]
        unseen = next((p for p in rest if p not in seen), None)
        if unseen is None:
            stack.pop()
            sequence.append(block)
        else:
            seen.add(unseen)
            stack.append((unseen, iter(before[unseen])))
    return sequence
