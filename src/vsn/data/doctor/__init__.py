"""The doctor: what would break or bias a training run on a data set, said before the run.

`examine` reads, decodes and measures, and returns a `Diagnosis`; `print_page` shows it on a terminal.
"""

from vsn.data.doctor.diagnosis import Diagnosis
from vsn.data.doctor.evidence import Finding
from vsn.data.doctor.examine import examine
from vsn.data.doctor.flow import FlowWanted
from vsn.data.doctor.page import print_page

__all__ = ["Diagnosis", "Finding", "FlowWanted", "examine", "print_page"]
