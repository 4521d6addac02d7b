"""Files made to run something when they are loaded. Every one of them would create the folder `canary`.

How: a pickle names a function and its arguments. What: functions of Python and of PyTorch that run texts, start
programs, import modules or unpickle again. Where: as a bare pickle, in a zip as PyTorch writes it, in its old format,
at the top or deep in a state.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _call(module: str, name: str, *arguments: object) -> bytes:
    """Opcodes that leave the result of a call on the stack."""
    packed = pickle.dumps(tuple(arguments), protocol=0)[:-1]  # without its end
    return _global(module, name) + packed + b"R"


def calls(canary: Path) -> dict[str, bytes]:
    """Opcodes by name, each of which creates the canary when executed."""
    code = f"import os; os.mkdir({str(canary)!r})"
    shell = f"mkdir {canary}"
    again = b"\x80\x02" + _call("os", "mkdir", str(canary)) + b"."
    return {
        "os.mkdir": _call("os", "mkdir", str(canary)),
        "posix.mkdir": _call("posix", "mkdir", str(canary)),
        "os.system": _call("os", "system", shell),
        "posix.system": _call("posix", "system", shell),
        "os.popen": _call("os", "popen", shell),
        "os.spawnlp": _call("os", "spawnlp", 0, "mkdir", "mkdir", str(canary)),
        "subprocess.call": _call("subprocess", "call", ["mkdir", str(canary)]),
        "subprocess.Popen": _call("subprocess", "Popen", ["mkdir", str(canary)]),
        "subprocess.check_output": _call("subprocess", "check_output", ["mkdir", str(canary)]),
        "builtins.exec": _call("builtins", "exec", code),
        "builtins.eval": _call("builtins", "eval", f"__import__('os').mkdir({str(canary)!r})"),
        "__builtin__.eval": _call("__builtin__", "eval", f"__import__('os').mkdir({str(canary)!r})"),
        "builtins.__import__": _call("builtins", "__import__", "batteries_canary"),
        "importlib.import_module": _call("importlib", "import_module", "batteries_canary"),
        "runpy._run_code": _call("runpy", "_run_code", code, {}),
        "runpy.run_module": _call("runpy", "run_module", "batteries_canary"),
        "code.InteractiveInterpreter": _call("code", "interact"),
        "timeit.timeit": _call("timeit", "timeit", code, "pass", 1),
        "pty.spawn": _call("pty", "spawn", ["mkdir", str(canary)]),
        "pdb.run": _call("pdb", "run", code),
        "bdb.Bdb.run": _call("bdb", "Bdb"),
        "cProfile.run": _call("cProfile", "run", code),
        "pathlib.Path": _call("pathlib", "PosixPath", str(canary)),
        "shutil.copytree": _call("shutil", "copytree", "/proc/self/fdinfo", str(canary)),
        "pickle.loads": _call("pickle", "loads", again),
        "_pickle.loads": _call("_pickle", "loads", again),
        "operator.methodcaller": _call("operator", "methodcaller", "mkdir"),
        "functools.partial": _call("functools", "partial", len),
        "ctypes.CDLL": _call("ctypes", "CDLL", "libc.so.6"),
        "webbrowser.open": _call("webbrowser", "open", "file:///etc/hostname"),
        "torch.load": _call("torch", "load", "/dev/null"),
        "torch.hub.load": _call("torch.hub", "load", "/tmp", "x"),
        "torch.storage._load_from_bytes": _call("torch.storage", "_load_from_bytes", again),
        "torch.jit.load": _call("torch.jit", "load", "/dev/null"),
        "torch.utils.cpp_extension.load": _call("torch.utils.cpp_extension", "load", "x", []),
        "torch.serialization.add_safe_globals": _call("torch.serialization", "add_safe_globals", []),
        "torch._dynamo.guards.eval": _call("torch._dynamo.guards", "eval", code),
        "torch.fx.graph_module.reduce": _call("torch.fx.graph_module", "reduce_graph_module", {}, ""),
        "numpy.load": _call("numpy", "load", "/dev/null"),
        "numpy.testing.runstring": _call("numpy.testing._private.utils", "runstring", code, {}),
        "sklearn.joblib": _call("joblib", "load", "/dev/null"),
        "batteries.import_fresh": _call("batteries.experiment.imports", "import_fresh", str(canary)),
        "batteries.load_experiment": _call("batteries.experiment.load", "load_experiment", "/tmp"),
        "site.main": _call("site", "main"),
        "imp by spec": _call("importlib.machinery", "SourceFileLoader", "x", str(canary)),
        "getattr chain": _call("builtins", "getattr", 0, "real"),
        "build": _global("collections", "OrderedDict") + b")R" + pickle.dumps({"__class__": 1}, 0)[:-1] + b"b",
        "inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n",
        "obj": b"(" + _global("os", "system") + b"S'" + shell.encode() + b"'\no",
        "newobj": _global("subprocess", "Popen") + pickle.dumps((["mkdir", str(canary)],), 0)[:-1] + b"\x81",
        "extension code": b"\x82\x01",
        "stack global": b"\x8c\x02os\x8c\x06system\x93" + pickle.dumps((shell,), 0)[:-1] + b"R",
    }


def containers(opcodes: bytes) -> Iterator[tuple[str, bytes]]:
    """Whole files around opcodes that leave one value on the stack."""
    deep = b"\x80\x02}(X\x05\x00\x00\x00model}X\x06\x00\x00\x00weight" + opcodes + b"su."
    yield "bare", b"\x80\x02" + opcodes + b"."
    yield "zip", _zip(deep)
    yield "old format", _old(deep)


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _old(content: bytes) -> bytes:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    about = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    return magic + pickle.dumps(1001, 2) + about + content + pickle.dumps([], 2)


def corpus(canary: Path) -> dict[str, bytes]:
    """All files by what they are."""
    return {f"{name}, {where}": file for name, opcodes in calls(canary).items() for where, file in containers(opcodes)}
