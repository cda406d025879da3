"""The doctor: what would break or bias a training run on a data set, said before the run.

`examine` reads, decodes and measures, and returns a `Diagnosis`; `print_page` shows it on a terminal.
"""

from vsn.doctor.diagnosis import Diagnosis
from vsn.doctor.evidence import Finding
from vsn.doctor.examine import examine
from vsn.doctor.flow import FlowWanted
from vsn.doctor.page import print_page

__all__ = ["Diagnosis", "Finding", "FlowWanted", "examine", "print_page"]
