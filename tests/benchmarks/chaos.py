"""A hundred kills: what each kind costs, and whether the table ends as that of a launch that was left alone.

python tests/benchmarks/chaos.py [--kills 100] [--seed 1] [--steps 3000]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import chaos

SPACE = """
name: chaos
settings: {{dataset: digits, steps: {steps}, momentum: 0.5}}
axes: {{width: [1, 2], batch_norm: [false, true], activation: [relu, tanh], seed: 32}}
"""
SHARES = {"worker": 40, "raylet": 22, "driver": 12, "notice": 10, "terminate": 8, "head": 8}
"""Of a hundred kills."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * given.kills / 100))]
    with tempfile.TemporaryDirectory() as scratch, chaos.environment():
        folder = Path(scratch)
        (folder / "chaos.yaml").write_text(SPACE.format(steps=given.steps))
        with chaos.small_disk(folder / "disk") as has_disk:
            kinds += [kind for kind in chaos.TROUBLES if has_disk or kind != "disk full"]
            alone = chaos.undisturbed(folder / "chaos.yaml", folder / "undisturbed")
            print(f"undisturbed, on this machine without a cluster: {alone:.0f} s", flush=True)
            trouble = chaos.Chaos(
                folder / "disk", folder / "chaos.yaml", kinds, given.seed, lambda text: print(text, flush=True)
            )
            started = time.monotonic()
            trouble.run(limit=3600)
            show(trouble, alone, time.monotonic() - started)
            for what, read in {"rows": chaos.table, "curves": chaos.curves}.items():
                same = read(trouble.store).equals(read(folder / "undisturbed"))
                print(f"{what} equal to those of the undisturbed launch: {'yes' if same else 'NO'}")


def show(trouble: chaos.Chaos, alone: float, seconds: float) -> None:
    """The table by kind."""
    print("\n| kind | times | arrays hit | of these with a checkpoint | training lost, s | longest, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in dict.fromkeys(fault.kind for fault in trouble.faults):
        mine = [fault for fault in trouble.faults if fault.kind == kind]
        hit = [each for fault in mine for each in fault.hit.values()]
        lost = [fault.lost for fault in mine]
        kept = sum(done > 0 for done, _ in hit)
        print(f"| {kind} | {len(mine)} | {len(hit)} | {kept} | {sum(lost):.1f} | {max(lost):.1f} |")
    kills = [fault for fault in trouble.faults if fault.kind in chaos.KILLS]
    print(
        f"\n{len(kills)} kills and {len(trouble.faults) - len(kills)} other faults, {trouble.launches} launches, "
        f"{trouble.clusters} clusters, {seconds:.0f} s, {seconds / alone:.1f} times the undisturbed launch; "
        f"training lost by a kill: median {statistics.median(fault.lost for fault in kills):.1f} s"
    )
    if trouble.pending:
        print(f"the sweep was done before {len(trouble.pending)} faults came: --steps makes it longer")
    back = sum(len(seen.back) for seen in trouble.watch.seen.values())
    print(f"arrays that went back behind a checkpoint: {back}; rows that changed: {len(trouble.watch.changed)}")


if __name__ == "__main__":
    main()
