"""Modules that libraries import and no daemon uses are read when somebody asks for a name in them, which nobody does.

They are a third of a milter: dnspython's resolver comes with an HTTP client, structlog with asyncio, dkimpy with an Ed25519 of
its own. Nothing is taken away: who does use such a module gets it, whole, at that moment.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from importlib.abc import Loader
from types import ModuleType

MISSING = "__getattr__"  # what Python calls for a name that a module lacks (PEP 562)


def put_off(*names: str) -> None:
    """Have these modules read at their first use; those that are there already, or not installed, stay as they are."""
    for name in names:
        module = None if name in sys.modules else _unread(name)
        if module is None:
            continue
        sys.modules[name] = module
        package, _, own_name = name.rpartition(".")
        if package:
            setattr(sys.modules[package], own_name, module)  # as the import of a submodule does


def is_unread(name: str) -> bool:
    """Tell whether a module was put off and nobody has asked for a name in it since."""
    return name in sys.modules and isinstance(vars(sys.modules[name]).get(MISSING), _Reading)


def _unread(name: str) -> ModuleType | None:
    """Return a module whose code has not run; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # of its package
        return None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    # Without its path the import of a submodule asks for it, and so reads the package first, as the order is.
    path = vars(module).pop("__path__", None)
    vars(module)[MISSING] = _Reading(module, spec.loader, path)
    return module


class _Reading:
    """Runs the code of a module that was put off, once, whichever thread asks first; the others wait for it.

    importlib's LazyLoader would not do: the next `import` of the module looks into it, and reads it.
    """

    def __init__(self, module: ModuleType, loader: Loader, path: object) -> None:
        """`path` is where a package's submodules are; None where it is no package."""
        self._module = module
        self._loader = loader
        self._path = path
        self._lock = threading.RLock()
        self._is_running = False

    def __call__(self, name: str) -> object:
        """Return the value of a name. Raises AttributeError, and whatever reading the module raises."""
        with self._lock:
            if vars(self._module).get(MISSING) is self and not self._is_running:
                self._read()
            if name in vars(self._module) or vars(self._module).get(MISSING) is not self:
                return getattr(self._module, name)
        raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}")

    def _read(self) -> None:
        self._is_running = True  # the module may look for names of its own before it has them
        try:
            if self._path is not None:
                vars(self._module)["__path__"] = self._path
            self._loader.exec_module(self._module)
        except BaseException:
            vars(self._module).pop("__path__", None)
            raise
        finally:
            self._is_running = False
        if vars(self._module).get(MISSING) is self:
            del vars(self._module)[MISSING]
