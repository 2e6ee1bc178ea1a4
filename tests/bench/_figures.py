"""How a benchmark says its figures, so that a program can read them: `bench NAME VALUE GOAL holds|short`."""


def tell(name: str, value: float, goal: str, holds: bool) -> None:
    print(f"bench {name} {value:.5g} {goal} {'holds' if holds else 'short'}", flush=True)
