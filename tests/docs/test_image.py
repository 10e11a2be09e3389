"""The image: who runs the relay in it, and where that user may keep a spool."""

import re
from pathlib import Path

from relay.config import Config

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_a_volume_for_the_spool_belongs_to_the_user_of_the_image():
    """A new named volume takes its owner from the directory that it covers; a missing one would be root's."""
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    (made,) = re.findall(r"^RUN useradd .*--uid (\d+) .* (\w+)$", DOCKERFILE, re.MULTILINE)
    (directory,) = re.findall(rf"^RUN install -d -m 700 -o {made[1]} -g {made[1]} (\S+)$", DOCKERFILE, re.MULTILINE)
    usual = Config.model_fields["spool"].annotation().url

    assert made[0] == user
    assert usual == f"sqlite:{directory}/spool.db"
    for page in (DOCKERFILE, (ROOT / "README.md").read_text()):
        assert f"-v spool:{directory} -e RELAY__SPOOL__URL={usual}" in page
