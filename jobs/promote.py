"""Make the challenger of a registered model its champion, if it is not worse on given clips.

python jobs/promote.py instruments configs/irmas.yaml data.root=IRMAS
python jobs/promote.py instruments FOLDER --margin 0.01
"""

import sys

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="of the registered model")
    parser.add_argument("target", metavar="CONFIG|MANIFEST|FOLDER", help="clips that neither has heard")
    parser.add_argument("overrides", nargs="*", metavar="k=v", help="fields of CONFIG to change")
    parser.add_argument("--split", default="test", help="train, val, test (default) or official")
    said = "how much lower than the champion's its score may be, by the interval's lower end (0.02)"
    parser.add_argument("--margin", type=float, default=0.02, help=said)
    return cli.run_pipeline("promote", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
