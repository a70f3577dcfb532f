"""`Settings`. `configure` overrides the environment variables, which override the defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from asynctrack.errors import InvalidInputError
from asynctrack.platforms import check_folder_name
from asynctrack.values import shortened

__all__ = ["ON_INVALID", "OnInvalid", "Settings", "configure", "current_settings", "switch"]


OnUnreachable = Literal["spool", "raise"]
SpoolFull = Literal["block", "drop_new", "raise"]
OnInvalid = Literal["raise", "warn", "skip"]
ON_INVALID: tuple[str, ...] = get_args(OnInvalid)
Durability = Literal["process", "system"]


SnapshotOption = Literal["copy", "link"]
Mode = Literal["online", "offline"]
Shipper = Literal["thread", "process"]


class Settings(NamedTuple):
    """The settings of asynctrack; `configure` sets them. A run keeps the
    settings it was started with.

    A field, like ``flush_interval``, can also be set by an environment
    variable, like ``ASYNCTRACK_FLUSH_INTERVAL``. The two functions
    (``on_error``, ``token``) cannot.

    ``flush_interval``: seconds between two reads of the journal. `flush`, the
    end of a run and a full spool wake the engine earlier.

    ``close_timeout``: seconds that the end of a run, or of the interpreter,
    waits for delivery. The rest stays in the spool.

    ``handle_sigterm``: on SIGTERM or SIGHUP, if the program has no handler of
    its own, end the open runs as KILLED, deliver, then die of the signal.
    Takes effect when a run is started in the main thread.

    ``term_timeout``: seconds that this waits for delivery. Slurm and
    Kubernetes kill 30 s after SIGTERM by default.

    ``connect_timeout``: seconds that entering a run's block waits for the
    store to create the run.

    ``on_unreachable``: what happens when the store does not create the run in
    that time. "spool": a warning, and the run is created when the store is
    back. "raise": UnavailableError.

    ``mode``: "online", or "offline": the network is never used, and everything
    stays in the spool until `asynctrack sync`.

    ``shipper``: where delivery runs. "thread": in this process. "process": in
    a process of its own, which leaves the interpreter's lock to the program.

    ``spool_dir``: folder of the spools. None: ``.asynctrack/`` in the working
    directory; the user's state folder (``$XDG_STATE_HOME/asynctrack/``) where
    nothing should be left in that directory. See docs/guarantees.md.

    ``max_spool_bytes``: bytes of undelivered events on disk, per process and
    store. Beyond it, and not counted: which runs and metrics the events are
    of, about half a kilobyte a run, and the ends of runs. The rest could not
    be delivered without them.

    ``spool_full``: what a log call does when ``max_spool_bytes`` is reached or
    the disk is full. "block": wait for room. "drop_new": do not accept the
    event, but count and report it. "raise": SpoolFullError.

    ``on_invalid``: what a log call does with a value, key, step or timestamp
    that can never be stored. "raise": InvalidInputError, and nothing of the
    call is logged. "warn": leave it out, log the rest of the call, and say so
    once for each key. "skip": the same in silence.

    ``durability``: "process": logged events survive the process. "system":
    they also survive a crash of the machine, except those of the last flush
    interval; each batch then costs an fsync.

    ``segment_bytes``: largest size of a journal segment in bytes. The first
    segments are smaller.

    ``snapshot``: how a logged file is kept until it is uploaded. "copy": the
    file may be overwritten at once. "link": a hard link, which takes no time
    and no room, but the file may then only be deleted or replaced.

    ``on_error``: a function called in the engine's thread, with a run id and a
    `Refusal`, for every event that the store refuses for good.

    ``token``: a function that returns the bearer token for tracking servers;
    for tokens that expire. It is used instead of credentials in the tracking
    URI, the environment and files. Several threads may call it at once, before
    each request. It may block.
    """

    flush_interval: float = 0.5
    close_timeout: float = 60.0
    handle_sigterm: bool = True
    term_timeout: float = 20.0
    connect_timeout: float = 10.0
    on_unreachable: OnUnreachable = "spool"
    mode: Mode = "online"
    shipper: Shipper = "thread"
    spool_dir: str | None = None
    max_spool_bytes: int = 10 * 1024**3
    spool_full: SpoolFull = "drop_new"
    on_invalid: OnInvalid = "raise"
    durability: Durability = "process"
    segment_bytes: int = 4 * 1024**2
    snapshot: SnapshotOption = "copy"
    on_error: Callable[[str, Any], None] | None = None
    token: Callable[[], str] | None = None

    def __repr__(self) -> str:
        """Leave out the token function: its ``repr`` may contain a secret (``functools.partial``, a bound method)."""
        shown = (f"{name}={value!r}" for name, value in self._asdict().items() if name != "token")
        return f"Settings({', '.join(shown)}, token={'***' if self.token else None})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The defaults, overridden by ``ASYNCTRACK_*``. Raises
        `InvalidInputError` that names the variable."""
        given: dict[str, Any] = {}
        for name, default in cls._field_defaults.items():
            variable = f"ASYNCTRACK_{name.upper()}"
            text = environment.get(variable)
            if not text or name in _FUNCTIONS:
                continue
            kind = type(default)
            try:
                given[name] = _SWITCH[text.lower()] if kind is bool else kind(text) if kind in (int, float) else text
            except ValueError:
                raise InvalidInputError(f"{variable}={text!r}: it must be a number") from None
            except KeyError:
                raise InvalidInputError(f"{variable}={text!r}: it must be one of {', '.join(_SWITCH)}") from None
        return cls(**given).checked()

    def checked(self) -> Settings:
        """These settings, checked. Raises `InvalidInputError` that names the
        first bad one."""
        for name, value in self._asdict().items():
            if name in _CHOICES and not (isinstance(value, str) and value in _CHOICES[name]):
                choices = ", ".join(map(repr, _CHOICES[name]))
                raise InvalidInputError(f"{name}={shortened(value)}: it must be one of {choices}")
            if isinstance(self._field_defaults[name], bool):
                if not isinstance(value, bool):
                    raise InvalidInputError(f"{name}={shortened(value)}: it must be True or False")
            elif isinstance(self._field_defaults[name], int | float) and not (
                isinstance(value, int | float) and not isinstance(value, bool) and value > 0
            ):
                raise InvalidInputError(f"{name}={shortened(value)}: it must be a number greater than 0")
        if self.token is not None:
            _check_token_function(self.token)
        if self.on_error is not None and not callable(self.on_error):
            raise InvalidInputError(f"on_error={shortened(self.on_error)}: it must be a function, or None")
        return self._replace(spool_dir=_checked_folder(self.spool_dir))


def _checked_folder(folder: Any) -> str | None:
    if folder is None:
        return None
    try:
        text = os.fspath(folder)
    except Exception:  # whatever its __fspath__ raises
        text = None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidInputError(f"spool_dir={shortened(folder)}: it must be the path of a folder, or None")
    check_folder_name("spool_dir", text)
    return text


def _check_token_function(token: object) -> None:
    if not callable(token):
        raise InvalidInputError(
            f"token is {type(token).__name__}; it must be a function that returns one. A token that stays the same is "
            f"given in the environment, as MLFLOW_TRACKING_TOKEN"
        )
    import inspect  # late: few programs need it, and it takes a tenth of `import asynctrack`

    if inspect.iscoroutinefunction(token):
        raise InvalidInputError("token is a coroutine function; it must be an ordinary one, which may block")


#: longest time in seconds, ten years
_LONGEST = 10 * 366 * 86400.0
#: settings that an environment variable cannot hold
_FUNCTIONS = ("on_error", "token")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_CHOICES: dict[str, tuple[str, ...]] = {
    "spool_full": get_args(SpoolFull),
    "on_invalid": ON_INVALID,
    "durability": get_args(Durability),
    "on_unreachable": get_args(OnUnreachable),
    "mode": get_args(Mode),
    "snapshot": get_args(SnapshotOption),
    "shipper": get_args(Shipper),
}
_configured: dict[str, Any] = {}


def switch(variable: str, *, default: bool) -> bool:
    """An environment variable of MLflow's that is on or off. Anything that is neither counts as not set."""
    return _SWITCH.get(os.environ.get(variable, "").strip().lower(), default)


def configure(**settings: Any) -> None:
    """Set fields of `Settings` for all runs that this process starts from now
    on. They override the environment.

    ``None`` returns a field to the environment or the default. Any thread may
    call. Raises `InvalidInputError` for an unknown field or a bad value;
    nothing is set then.
    """
    unknown = settings.keys() - set(Settings._fields)
    if unknown:
        known = ", ".join(Settings._fields)
        raise InvalidInputError(f"no such setting: {', '.join(sorted(unknown))}; the settings are {known}")
    wanted = {name: value for name, value in (_configured | settings).items() if value is not None}
    checked = Settings()._replace(**wanted).checked()
    _configured.clear()
    _configured.update({name: getattr(checked, name) for name in wanted})


def current_settings() -> Settings:
    """The settings of a run that is started now. Raises `InvalidInputError`
    for a bad environment variable."""
    settings = Settings.from_environment()._replace(**_configured)
    seconds = {name: getattr(settings, name) for name, default in Settings._field_defaults.items() if _is_time(default)}
    # Infinity is a legal setting, but no lock can be waited for that long.
    return settings._replace(**{name: min(value, _LONGEST) for name, value in seconds.items()})


def _is_time(default: object) -> bool:
    return isinstance(default, float)
