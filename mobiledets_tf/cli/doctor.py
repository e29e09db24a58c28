"""`mobiledets-doctor`: checks the software stack and the devices, and prints the fix for each fault."""

import sys

from absl import flags

from mobiledets_tf.cli import app

FLAGS = flags.FlagValues()

flags.DEFINE_enum("format", "text", ["text", "json"], "Output format.", flag_values=FLAGS)

DESCRIPTION = """
Reports package versions, the repairs applied to them, whether the software stack imports, and which devices
can be reached. Exits with 0 if training, search and export can run, otherwise with 1.

  mobiledets-doctor
  mobiledets-doctor --format=json
"""


def main() -> int:
    """Prints the report and returns the exit code."""
    from mobiledets_tf import doctor

    report = doctor.examine()
    print(doctor.as_json(report) if FLAGS.format == "json" else doctor.as_text(report))
    return 0 if report.ok else 1


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
