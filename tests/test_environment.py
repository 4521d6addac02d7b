"""Environment: the process made ready to train, and what a result was made with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from batteries.errors import ConfigError
from batteries.prepare import cores, environment
from batteries.prepare.cores import share_cores, usable_cores
from batteries.prepare.environment import changed_versions, prepare_environment, provenance

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")


@pytest.fixture(autouse=True)
def settings_kept() -> Iterator[None]:
    """Settings of the process are as before after each test."""
    threads, matmul, anomalies = torch.get_num_threads(), torch.get_float32_matmul_precision(), False
    benchmark, sharing = torch.backends.cudnn.benchmark, torch.multiprocessing.get_sharing_strategy()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(anomalies)
    torch.backends.cudnn.benchmark = benchmark
    torch.multiprocessing.set_sharing_strategy(sharing)


def git(folder: Path, *command: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit, with one file changed since."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "experiment.py").write_text("lr = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "experiment.py").write_text("lr = 2\n")
    return folder


def python(code: str, **variables: str) -> Any:
    """What a fresh Python prints, as JSON."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**clean, **variables})
    return json.loads(done.stdout)


def test_what_was_set_is_returned_and_is_what_pytorch_says() -> None:
    made = prepare_environment(matmul="high", anomalies=False, sharing="file_system", keep_memory=False)
    assert json.loads(json.dumps(made)) == made
    assert made == {
        "threads": 1,
        "matmul": "high",
        "benchmark": False,
        "deterministic": False,
        "anomalies": False,
        "sharing": "file_system",
        "keep_memory": False,
        "quiet": True,
    }
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.multiprocessing.get_sharing_strategy() == "file_system"


def test_preparing_twice_changes_nothing_more() -> None:
    with warnings.catch_warnings():
        first = prepare_environment(deterministic=True, threads=2, keep_memory=False)
        filters = list(warnings.filters)
        assert prepare_environment(keep_memory=False) == first
        assert warnings.filters == filters
    assert first["deterministic"]


def test_what_is_none_stays_as_the_caller_had_it() -> None:
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    made = prepare_environment(keep_memory=False)
    assert (made["deterministic"], made["benchmark"], made["threads"]) == (True, True, 1)
    assert prepare_environment(deterministic=False, keep_memory=False)["deterministic"] is False


def test_an_anomaly_is_named_only_when_asked_for() -> None:
    def backward() -> None:
        number = torch.zeros(1, requires_grad=True)
        (torch.sqrt(number) * 0).sum().backward()

    prepare_environment(keep_memory=False)
    backward()
    prepare_environment(anomalies=True, keep_memory=False)
    with pytest.raises(RuntimeError, match=r"Sqrt.*nan"), pytest.warns(UserWarning, match="Error detected in Sqrt"):
        backward()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"deterministic": True, "benchmark": True}, "benchmark=True lets cuDNN choose by time, which deterministic"),
        ({"matmul": "low"}, "matmul must be one of highest, high, medium, got 'low'"),
        ({"threads": 0}, "threads must be >= 1, got 0"),
        ({"sharing": "files"}, "sharing must be one of .*file_system here, got 'files'"),
    ],
)
def test_values_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_environment(keep_memory=False, **wrong)


def test_only_named_warnings_are_hidden(recwarn: pytest.WarningsRecorder) -> None:
    prepare_environment(keep_memory=False)
    warnings.warn("The given NumPy array is not writable, and so on", stacklevel=1)
    assert len(recwarn) == 0
    warnings.warn("learning rate is odd", stacklevel=1)
    assert [str(each.message) for each in recwarn] == ["learning rate is odd"]


def test_noise_is_spelled_as_pytorch_spells_it() -> None:
    folder = Path(torch.__file__).parent
    library = (folder / "lib" / "libtorch_python.so").read_bytes()
    transformer = (folder / "nn" / "modules" / "transformer.py").read_text()
    assert environment._NOISE[0].encode() in library
    assert environment._NOISE[3] in transformer


TRAINING = """
import json, resource
from batteries.prepare.environment import prepare_environment
import torch
made = prepare_environment(keep_memory=KEEP, threads=1)
model = torch.nn.Sequential(*(torch.nn.Conv2d(c, 16, 3, padding=1) for c in (1, 16, 16)))
images = torch.randn(32, 1, 64, 64)
def step():
    model(images).square().mean().backward()
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
print(json.dumps([made["keep_memory"], (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5]))
"""


@glibc
def test_kept_memory_is_not_faulted_in_again_at_every_step() -> None:
    kept, few = python(TRAINING.replace("KEEP", "True"))
    given_back, many = python(TRAINING.replace("KEEP", "False"))
    assert (kept, given_back) == (True, False)
    assert few < many / 10  # 20 against 6,000


@glibc
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert prepare_environment()["keep_memory"] is False


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are bound to cores on Linux only")
def test_threads_keep_to_the_cores_the_process_is_bound_to() -> None:
    code = "import os, json; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    code += "import torch; torch.set_num_threads(8);"
    code += "from batteries.prepare.environment import prepare_environment as p;"
    code += "print(json.dumps([p()['threads'], p(threads=3)['threads']]))"
    assert python(code) == [1, 3]


def test_threads_are_never_raised_and_omp_num_threads_is_respected() -> None:
    code = "import json, torch; torch.set_num_threads(N);"
    code += "from batteries.prepare.environment import prepare_environment; print(prepare_environment()['threads'])"
    assert python(code.replace("N", "1")) == 1
    assert python(code.replace("N", "999"), OMP_NUM_THREADS="999") == 999
    assert python(code.replace("N", "999")) == usable_cores()


def test_hyperthreads_of_a_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_siblings", lambda number: f"{number % 4}")
    monkeypatch.setattr(cores, "_container_share", lambda: None)
    assert usable_cores() == 4
    monkeypatch.setattr(cores, "_container_share", lambda: 2.5)
    assert usable_cores() == 2
    monkeypatch.setattr(cores, "_container_share", lambda: 0.5)
    assert usable_cores() == 1


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    (groups / "a" / "b").mkdir(parents=True)
    own.write_text("0::/a/b\n")
    share = cores._container_share
    assert share(groups, own) is None
    (groups / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert share(groups, own) is None
    (groups / "a" / "cpu.max").write_text("150000 100000\n")
    (groups / "cpu.max").write_text("400000 100000\n")
    assert share(groups, own) == 1.5


def test_control_groups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    folder, own = tmp_path / "cgroup" / "cpu" / "a", tmp_path / "own"
    folder.mkdir(parents=True)
    own.write_text("5:memory:/a\n4:cpu,cpuacct:/a\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores._container_share(tmp_path / "cgroup", own) is None
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert cores._container_share(tmp_path / "cgroup", own) == 3


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes() -> None:
    resource = pytest.importorskip("resource")
    code = "import json, resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard));"
    code += "from batteries.prepare.environment import prepare_environment; prepare_environment();"
    code += "print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert python(code) == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))


def test_provenance_is_plain_and_says_what_matters(repository: Path) -> None:
    prepared = prepare_environment(keep_memory=False)
    made = provenance(repository, prepared=prepared)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["packages"]["torch"] == made["installed"]["torch"] == torch.__version__
    assert made["python"] == platform.python_version()
    assert made["settings"] == prepared
    assert made["cpu"]["torch_threads"] == 1
    assert (made["cuda"] is None) == (not torch.cuda.is_available())


def test_provenance_names_neither_machine_nor_home(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(sys, "executable", "/home/ada/work/.venv/bin/python")
    made = provenance(repository)
    assert made["executable"] == "~/work/.venv/bin/python"
    assert "/home/ada" not in json.dumps(made)
    assert set(made) & {"host", "hostname", "node", "user"} == set()


def test_variables_that_change_results_are_noted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    made = provenance(repository)
    assert made["variables"]["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert "secret" not in json.dumps(made)


def test_uncommitted_changes_are_kept_as_a_patch_that_applies(repository: Path) -> None:
    made = provenance(repository)["git"]
    assert made["changed_files"] == [" M experiment.py"]
    git(repository, "checkout", "-q", "experiment.py")
    (repository / "patch").write_text(made["diff"])
    git(repository, "apply", "patch")
    assert (repository / "experiment.py").read_text() == "lr = 2\n"


def test_a_patch_over_a_megabyte_is_kept_as_its_digest(repository: Path) -> None:
    (repository / "experiment.py").write_text("x = 1\n" * 300_000)
    diff = provenance(repository)["git"]["diff"]
    assert set(diff) == {"sha256", "bytes"}
    assert diff["bytes"] > 2_000_000


def test_without_changes_the_patch_is_empty_and_without_git_there_is_none(repository: Path, tmp_path: Path) -> None:
    git(repository, "commit", "-q", "-a", "-m", "second")
    assert provenance(repository)["git"]["diff"] == ""
    alone = tmp_path / "alone"
    alone.mkdir()
    assert provenance(alone)["git"] is None


def test_changed_versions_are_named_with_both_values() -> None:
    then = {
        "python": "3.11.7", "packages": {"torch": "2.11.0", "numpy": "2.4.6", "timm": "1.0"}, "gpu": ["A100"],
        "cuda": {"version": "12.8", "cudnn": 91002, "driver": "570.1"}, "cpu": {"torch_threads": 8},
    }  # fmt: skip
    now = {
        "python": "3.12.1", "packages": {"torch": "2.13.0", "numpy": "2.4.6", "kornia": "0.8"}, "gpu": [],
        "cuda": None, "cpu": {"torch_threads": 4},
    }  # fmt: skip
    assert changed_versions(then, now) == [
        "Python 3.11.7 then, 3.12.1 now",
        "torch 2.11.0 then, 2.13.0 now",
        "timm 1.0 then, not installed now",
        "GPU A100 then, none now",
        "CPU threads 8 then, 4 now",
    ]


def test_nothing_changed_between_two_provenances_of_one_process(tmp_path: Path) -> None:
    made = provenance(tmp_path)
    assert changed_versions(made, provenance(tmp_path)) == []
    assert changed_versions({}, made) == []


def test_threads_that_wait_sleep_sooner_unless_the_environment_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for set_already in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        monkeypatch.setenv(set_already, "7")
        share_cores()
        assert os.environ.get("GOMP_SPINCOUNT") == ("7" if set_already == "GOMP_SPINCOUNT" else None)
        monkeypatch.delenv(set_already)
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "30000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
