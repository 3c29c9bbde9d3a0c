"""docs/tour.ipynb runs from its first cell to its last on any corpus."""

import json
from pathlib import Path

from conftest import ROOT, run

TOUR = ROOT / "docs/tour.ipynb"


def test_the_tour_of_a_small_corpus(small_corpus: Path, tmp_path: Path) -> None:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "tour.py"
    script.write_text("\n".join(code), encoding="utf-8")
    saving = tmp_path / "sitecustomize.py"  # what `plt.show` shows is kept
    saving.write_text(
        "import matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot as plt\n"
        "plt.show = lambda: (plt.savefig(f'picture-{plt.gcf().number}.png', dpi=60, bbox_inches='tight'))\n",
        encoding="utf-8",
    )
    done = run("python tour.py", tmp_path, TOUR_FOLDER=str(small_corpus), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert "88 clips of one label, 11 classes, 44 groups" in done.stdout
    assert "split by group: balanced accuracy" in done.stdout and "clean" in done.stdout
    assert len(list(tmp_path.glob("picture-*.png"))) == 5
    assert not (tmp_path / "runs").exists()
