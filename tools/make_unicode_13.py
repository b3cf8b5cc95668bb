"""Writes torch_towers/formats/unicode_13.py: the scripts of TensorFlow's own string ops (ICU 69, Unicode 13), queried from TensorFlow.

Run: `python tools/make_unicode_13.py` with `tensorflow` installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

tf: Any = tensorflow
TARGET = Path(__file__).parent.parent / "torch_towers" / "unicode_13.py"
HEADER = '''"""The script of every code point in Unicode 13, which is what TensorFlow's own string ops know. Written by tools/make_unicode_13.py.

Each word is a run: its first code point and the ICU number of its script, both in base 16. 67 (UNKNOWN) is what is unassigned or private.
"""

from __future__ import annotations

SCRIPT_RUNS = """
'''


def main() -> None:
    scripts = tf.strings.unicode_script(tf.range(0x110000, dtype=tf.int32)).numpy()
    starts = [0, *(np.flatnonzero(np.diff(scripts)) + 1).tolist()]
    words = [f"{start:x}:{scripts[start]:x}" for start in starts]
    lines = [" ".join(words[i : i + 12]) for i in range(0, len(words), 12)]
    TARGET.write_text(HEADER + "\n".join(lines) + '\n"""\n')


if __name__ == "__main__":
    main()
