"""Write the table of tasks into ARCHITECTURE.md: what each means for each part of the lifecycle, as its own file says it."""

import re
from pathlib import Path

from mlops_nb.model.tasks.known import tasks_table

FILE = Path(__file__).parents[1] / "ARCHITECTURE.md"
text = FILE.read_text(encoding="utf-8")
made = re.sub(r"^\| \| binary .*\n(\|.*\n)+", lambda _: tasks_table() + "\n", text, flags=re.MULTILINE)
assert tasks_table() in made, "ARCHITECTURE.md has no table of tasks to renew: a line that begins with '| | binary'"
FILE.write_text(made, encoding="utf-8")
