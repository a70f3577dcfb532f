"""One frozen `Settings`: arguments beat environment variables, which beat the defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from asynctrack.errors import InvalidInputError

__all__ = ["Settings", "configure", "current_settings"]


OnUnreachable = Literal["spool", "raise"]
SpoolFull = Literal["block", "drop_new", "raise"]
Durability = Literal["process", "system"]


SnapshotOption = Literal["copy", "link"]
Mode = Literal["online", "offline"]
Shipper = Literal["thread", "process"]


class Settings(NamedTuple):
    """How asynctrack behaves. Each field ``name`` is also the environment variable ``ASYNCTRACK_NAME``, but for the
    functions."""

    #: seconds between two looks at the journal; flush, the end of a run and a full spool wake the engine earlier
    flush_interval: float = 0.5
    #: seconds that leaving a run, or the interpreter, waits for delivery before the rest stays in the spool
    close_timeout: float = 60.0
    #: on SIGTERM or SIGHUP, where the program has no handler of its own: end the open runs with KILLED and deliver,
    #: then die of the signal. Read when a run is started in the main thread
    handle_sigterm: bool = True
    #: seconds that this waits for delivery before the rest stays in the spool. Slurm and Kubernetes kill 30 s after
    #: SIGTERM unless told otherwise
    term_timeout: float = 20.0
    #: seconds that start_run waits for a store that cannot be reached, with ``on_unreachable="raise"``
    connect_timeout: float = 10.0
    #: the store cannot be reached when a run is started: "spool" goes on with a warning and creates the run when the
    #: store is back; "raise" raises after ``connect_timeout``
    on_unreachable: OnUnreachable = "spool"
    #: "offline" never touches the network: everything stays in the spool until `asynctrack sync`
    mode: Mode = "online"
    #: who delivers: a "thread" of this process, or a "process" of its own, which costs the program no interpreter time
    shipper: Shipper = "thread"
    #: folder for spools; None: ``.asynctrack/`` in the working directory, else the user's state folder
    spool_dir: str | None = None
    #: bytes of undelivered events kept on disk, per process and store
    max_spool_bytes: int = 10 * 1024**3
    #: what a log call does when that is reached or the disk is full: "block" until there is room, "drop_new" (count
    #: and report the events not accepted), or "raise" SpoolFullError
    spool_full: SpoolFull = "drop_new"
    #: "process": what is logged survives the process; "system": also the machine, up to the last flush interval
    durability: Durability = "process"
    #: bytes of the largest journal segment; the first ones are smaller
    segment_bytes: int = 4 * 1024**2
    #: how a file that is logged is put aside: "copy", so that it may be overwritten at once, or "link", which takes no
    #: time and no room, but then it may only be deleted or replaced
    snapshot: SnapshotOption = "copy"
    #: called in the engine's thread with a run id and a `Refusal` for every event the store refuses for good
    on_error: Callable[[str, Any], None] | None = None
    #: returns the bearer token for tracking servers, for tokens that expire; goes before credentials in the tracking
    #: URI, the environment and files. Called before each request, by any thread and by several at once; it may block
    token: Callable[[], str] | None = None

    def __repr__(self) -> str:
        """Without the token function, whose own ``repr`` may hold a secret (``functools.partial``, a bound method)."""
        shown = (f"{name}={value!r}" for name, value in self._asdict().items() if name != "token")
        return f"Settings({', '.join(shown)}, token={'***' if self.token else None})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The defaults, overridden by ``ASYNCTRACK_*``. Raises `InvalidInputError` naming the variable."""
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
        """These settings. Raises `InvalidInputError` naming the first one that cannot be."""
        for name, value in self._asdict().items():
            if name in _CHOICES and value not in _CHOICES[name]:
                choices = ", ".join(map(repr, _CHOICES[name]))
                raise InvalidInputError(f"{name}={value!r}: it must be one of {choices}")
            if isinstance(self._field_defaults[name], bool):
                if not isinstance(value, bool):
                    raise InvalidInputError(f"{name}={value!r}: it must be True or False")
            elif isinstance(self._field_defaults[name], int | float) and not (
                isinstance(value, int | float) and value > 0
            ):
                raise InvalidInputError(f"{name}={value!r}: it must be a number greater than 0")
        if self.token is not None:
            _check_token_function(self.token)
        return self


def _check_token_function(token: object) -> None:
    if not callable(token):
        raise InvalidInputError(
            f"token is {type(token).__name__}; it must be a function that returns one. A token that stays the same is "
            f"given in the environment, as MLFLOW_TRACKING_TOKEN"
        )
    import inspect  # late: few need it, and it would be a tenth of `import asynctrack`

    if inspect.iscoroutinefunction(token):
        raise InvalidInputError("token is a coroutine function; it must be an ordinary one, which may block")


#: longest time in seconds, ten years
_LONGEST = 10 * 366 * 86400.0
#: settings that an environment variable cannot hold
_FUNCTIONS = ("on_error", "token")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_CHOICES: dict[str, tuple[str, ...]] = {
    "spool_full": get_args(SpoolFull),
    "durability": get_args(Durability),
    "on_unreachable": get_args(OnUnreachable),
    "mode": get_args(Mode),
    "snapshot": get_args(SnapshotOption),
    "shipper": get_args(Shipper),
}
_configured: dict[str, Any] = {}


def configure(**settings: Any) -> None:
    """Set process-wide settings (fields of `Settings`) for runs started from now on, over the environment.

    ``None`` as a value goes back to the environment or the default. Raises `InvalidInputError`; nothing is set then.
    """
    unknown = settings.keys() - set(Settings._fields)
    if unknown:
        known = ", ".join(Settings._fields)
        raise InvalidInputError(f"no such setting: {', '.join(sorted(unknown))}; the settings are {known}")
    wanted = {name: value for name, value in (_configured | settings).items() if value is not None}
    Settings()._replace(**wanted).checked()
    _configured.clear()
    _configured.update(wanted)


def current_settings() -> Settings:
    """The settings a run started now would get."""
    settings = Settings.from_environment()._replace(**_configured)
    seconds = {name: getattr(settings, name) for name, default in Settings._field_defaults.items() if _is_time(default)}
    # Infinity, too, is a long time; but no lock can be waited for as long.
    return settings._replace(**{name: min(value, _LONGEST) for name, value in seconds.items()})


def _is_time(default: object) -> bool:
    return isinstance(default, float)
