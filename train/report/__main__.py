"""Write the report of a finished comparison: python -m train.report FOLDER"""

from train.commands.command_line import run
from train.report import report

if __name__ == "__main__":
    run(report, positional="folder")
