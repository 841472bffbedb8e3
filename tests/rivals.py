"""Processes that do the same thing at the same moment, for the tests of what the store promises about races."""

import subprocess
import sys

_BARRIER = "import sys; print('ready', flush=True); sys.stdin.readline()"


def race(imports: str, action: str, *arguments: str, num_rivals: int = 3) -> list[str]:
    """Run `action` in several fresh interpreters at once and return what each printed.

    Args:
        imports: statements to run before the start, so that all start together.
        action: the statement to race; `sys.argv[1:]` are the arguments.
        *arguments: passed to each process.
        num_rivals: how many processes.

    Raises:
        CalledProcessError: when one of them fails.
    """
    command = [sys.executable, "-c", "\n".join([imports, _BARRIER, action]), *arguments]
    rivals = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(num_rivals)]
    for rival in rivals:
        assert rival.stdout is not None
        rival.stdout.readline()
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    outputs = [rival.communicate()[0] for rival in rivals]
    for rival in rivals:
        if rival.returncode:
            raise subprocess.CalledProcessError(rival.returncode, command)
    return outputs
