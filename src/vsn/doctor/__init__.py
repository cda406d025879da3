"""Find what would break or bias a training run on a data set, before the run.

`examine` reads, decodes and measures, and returns a `Diagnosis`; `print_page` shows it in a terminal.
"""

from vsn.doctor.diagnosis import Diagnosis
from vsn.doctor.examine import examine
from vsn.doctor.findings import Finding
from vsn.doctor.page import print_page

__all__ = ["Diagnosis", "Finding", "examine", "print_page"]
