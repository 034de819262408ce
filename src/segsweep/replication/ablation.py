"""The question that the texture notebook leaves: whether each layer makes sense, and what another architecture does."""

from segsweep.replication.finished import CONF
from segsweep.replication.published import Setting, Study

PUBLISHED = "published"
VARIANTS: tuple[str, ...] = tuple(sorted(path.stem for path in (CONF / "model/ablation").glob("*.yaml")))
"""Files of conf/model/ablation, each of which changes one thing of the published net."""

ABLATION = Study(
    "Ablation",
    ("study=ablation",),
    tuple(Setting(name, ("experiment=texture_adam", f"model=ablation/{name}")) for name in VARIANTS),
)
