"""Made-up results in the form of `collect`."""

CLEAR = [0.9, 0.91, 0.92, 0.9, 0.91]
NEAR = [0.91, 0.9, 0.91, 0.91, 0.9]
BAD = [0.5, 0.52, 0.51, 0.49, 0.5]
FAR = [0.1, 0.12, 0.1, 0.1, 0.1]


def made_up(study: str, numbers: dict[str, list[float | None]], metric: str) -> dict:
    """Runs of some settings, with a value of one metric for each seed; None for a diverged run."""
    return {"mistakes": {}, "settings": {
        f"{study}: {name}": {"overrides": [], "runs": [
            {"seed": seed, "diverged": value is None, "metrics": {} if value is None else {metric: value}}
            for seed, value in enumerate(each)
        ]}
        for name, each in numbers.items()
    }}  # fmt: skip
