"""`hptune` and `python -m hptune`: run a command, answer every mistake with one message and the right exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

import typer

from hptune.cli import interruption, streams
from hptune.cli.console import harmless
from hptune.errors import HptuneError, abridged, printable

USAGE = 2
LONGEST_NAME_SHOWN = 200
OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # a disk under a redirected output


def main() -> int:
    """Run the process's command line and return its exit status."""
    verbose = "--verbose" in sys.argv
    with _process_settings(verbose):
        try:
            return _run(sys.argv[1:])
        except HptuneError as error:
            _say_error(str(error), error, verbose)
            return error.exit_status
        except BrokenPipeError:
            _let_go_of_output()
            return 1
        except (KeyboardInterrupt, typer.Abort):
            with contextlib.suppress(OSError):
                print("\ninterrupted", file=sys.stderr)
            return interruption.INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OUTPUT_ERRORS and error.filename is None:
                _let_go_of_output()
                _say_error(f"cannot write standard output: {error.strerror}; what was done is saved", error, verbose)
                return 1
            detail = f"{type(error).__name__}: {error}".rstrip(": ")
            advice = "please report this" if verbose else "run again with --verbose for the traceback, and please report it"
            _say_error(f"internal error: {detail}; {advice}", error, verbose)
            return 1


def _run(arguments: Sequence[str]) -> int:
    from hptune.cli.app import app

    try:
        status = typer.main.get_command(app).main(args=list(arguments), prog_name="hptune", standalone_mode=False)
    except Exception as error:
        message = usage_message(error)
        if message is None:
            raise
        if message:
            print(f"{_command_path(error)}: {message}", file=sys.stderr)
        return USAGE
    sys.stdout.flush()
    return status if isinstance(status, int) else 0


def usage_message(error: Exception) -> str | None:
    """One line on a mistake of the command line, with what was probably meant; None for any other error.

    The parser's own classes lie elsewhere from one version of typer to the next; `format_message` is what they have in common.
    """
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{printable(abridged(str(error.filename), LONGEST_NAME_SHOWN))}: no file or folder can have a name this long"
    format_message = getattr(error, "format_message", None)
    if format_message is None:
        return None
    possible = getattr(error, "possibilities", None)
    text = " ".join(str(error.args[0] if possible else format_message()).split()).rstrip(".").replace(". Did you", "; did you")
    text = text[:1].lower() + text[1:]
    return f"{text}; did you mean {' or '.join(sorted(possible))}?" if possible else text


def _command_path(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return str(getattr(context, "command_path", "hptune"))


def _say_error(message: str, error: BaseException, verbose: bool) -> None:
    if verbose:
        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # nobody can be told
        print(f"error: {harmless(message)}", file=sys.stderr)


@contextlib.contextmanager
def _process_settings(verbose: bool) -> Iterator[None]:
    """SIGTERM and SIGHUP end like Ctrl-C; the streams are prepared; warnings of libraries stay out of sight."""
    streams.prepare()
    silence = not verbose and not sys.warnoptions
    try:
        with interruption.handled(_interrupt), warnings.catch_warnings():
            if silence:
                warnings.simplefilter("ignore")
                os.environ["PYTHONWARNINGS"] = "ignore"  # for worker processes
            yield
    finally:
        if silence:
            del os.environ["PYTHONWARNINGS"]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _let_go_of_output() -> None:
    """The interpreter flushes once more at its end, and should not fail again."""
    with contextlib.suppress(OSError, ValueError):
        streams.let_go(sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
