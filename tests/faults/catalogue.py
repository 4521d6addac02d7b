"""The catalogue of faults: what is tested where. test_catalogue.py holds that every test named here exists.

In:    the tests of the suite, here and beside the parts themselves.
Out:   one line a fault: its name, what is promised, the tests.
Next:  page.py makes docs/reliability.md of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One way things go wrong, what is promised then, and the tests that hold it: `file::beginning of the name`."""

    name: str
    what: str
    promise: str
    tests: tuple[str, ...]


W, A, S, M, N, F = (
    f"faults/test_{name}.py::test_" for name in ("writes", "artefacts", "stops", "mismatches", "names", "fuzz")
)
CATALOGUE = (
    Fault("W1", "kill -9 at a random moment", "the same command ends with the same bits", (f"{W}w1",)),
    Fault("W2", "killed at any act on a file", "the same; every kept checkpoint loads", (f"{W}w2",)),
    Fault("W3", "a torn write: name kept, content lost", "refused by its digest; the one before is used", (f"{W}w3",)),
    Fault("W4", "disk full at any act", "what was there is untouched; exit 6 with file and bytes free", (f"{W}w4",)),
    Fault("W5", "I/O error, read-only, no permission, quota", "the same", (f"{W}w4", f"{W}w5")),
    Fault("W6", "failure between deleting and writing of the few best", "written first, deleted after",
          ("test_checkpoint.py::test_a_disk_that_refuses_at_any_moment",)),
    Fault("W7", "a save behind the training fails", "raised at the next update",
          ("test_checkpoint.py::test_a_save_that_fails_behind_the_training_is_raised",)),
    Fault("W8", "state changed while it is saved", "the file holds the state at the call",
          ("test_checkpoint.py::test_the_file_is_the_state_at_the_time_of_the_call",)),
    Fault("W9", "killed while another verb writes", "old or new, never a part; the verb can be repeated", (f"{W}w9",)),
    Fault("C1", "a file cut at any length", "refused by name, within 2 s", (f"{A}c1_c2",)),
    Fault("C2", "one bit flipped anywhere", "refused by name", (f"{A}c1_c2", f"{A}c2")),
    Fault("C3", "empty, garbage, folder, pipe, loop, device", "refused at once in little memory", (f"{A}c3",)),
    Fault("C4", "a small file that asks for much", "refused before it gets it", (f"{A}c4",)),
    Fault("C5", "a hostile pickle or record", "nothing runs, nothing is imported", (f"{A}c5", f"{F}c5")),
    Fault("C6", "a name of code in a string", "stays a string", (f"{A}c6",)),
    Fault("C7", "weights of another architecture", "refused by name and shape; nothing is loaded", (f"{A}c7",)),
    Fault("C8", "a record of a newer version, or of another hand", "refused, with both versions or the value's name",
          (f"{A}c8", f"{M}r3_r4_c8", f"{F}c8")),
    Fault("C9", "files of older versions", "read, or migrated",
          ("test_ledger_faults.py::test_a_ledger_of_an_older_schema",)),
    Fault("C10", "plain and old files of weights", "loaded, or refused in words", (f"{A}c10",)),
    Fault("T1", "SIGTERM at any moment", "saved, exit 143; a second one acts at once", (f"{S}t1_t2",)),
    Fault("T2", "Ctrl-C, also twice", "saved, exit 130",
          (f"{S}t1_t2", "test_interrupt.py::test_the_second_ctrl_c_acts_at_once")),
    Fault("T3", "out of memory in a step", "halves the pieces, keeps the batch; exit 6 at one sample",
          ("test_update.py::test_",)),
    Fault("T4", "NaN or infinity in a loss or gradient", "no update is made of it; exit 7, skip or restore",
          ("test_guard.py::test_no_checkpoint_ever_holds_what_is_not_finite",
           "test_guard.py::test_stop_leaves_weights")),
    Fault("T5", "a metric that is not finite", "counts as worst; exit 7 when always",
          ("test_run.py::test_a_score_that_is_nan", "test_run.py::test_a_score_that_is_never_finite")),
    Fault("T6", "ties, a missing metric, a wrong direction", "the earlier wins; a clear error",
          ("test_checkpoint.py::test_the_best_are_those_of_the_metric",
           "test_checkpoint.py::test_another_metric_or_direction_is_refused")),
    Fault("T7", "a loader process dies, hangs, raises", "named with its row; none is left behind",
          ("test_workers.py::test_a_dead_worker_is_named", "test_workers.py::test_a_hung_worker_is_named",
           "test_workers.py::test_workers_end_with_the_main_process")),
    Fault("T8", "the user's code raises", "the epoch was saved before", ("test_resume.py::test_code_of_the_user",)),
    Fault("T9", "the clock jumps", "order and names do not depend on it", (f"{S}t9",)),
    Fault("T10", "two processes on one run", "the second leaves with 8 and names the first; a dead owner's lock ends",
          ("test_resume.py::test_a_second_process_on_the_same_run",
           "test_files.py::test_a_lock_ends_with_its_owner")),
    Fault("T11", "suspended and woken", "goes on; the lock is not stolen", (f"{S}t11",)),
    Fault("R1", "another device", "loads on the CPU first", ("test_gpu.py::test_",)),
    Fault("R2", "another number of processes", "the same batches, every row once",
          (f"{S}r2_r6", "test_distributed.py::test_a_run_goes_on_under_another_number")),
    Fault("R3", "a changed config", "refused, line by line", (f"{M}r3_r4_c8",)),
    Fault("R4", "changed data or split", "refused by name", (f"{M}r3_r4_c8",)),
    Fault("R5", "changed code or versions", "said, and noted", (f"{M}r5_r7",)),
    Fault("R6", "resumed often, at the end, when complete", "nothing is repeated", (f"{M}r6", f"{S}r2_r6")),
    Fault("R7", "lost files", "made again, or the one before is used and said", (f"{M}r5_r7", f"{M}r7")),
    Fault("D1", "a rank is killed", "all end within 10 s with 9; it is named", (f"{S}d1",
          "test_launch.py::test_a_rank_killed_in_any_phase")),
    Fault("D2", "a rank hangs", "all end after the timeout with 9 and the stacks", (f"{S}d2",
          "test_launch.py::test_a_rank_that_is_stopped")),
    Fault("D3", "uneven batches, one rank raises", "no deadlock",
          ("test_distributed.py::test_a_last_batch_smaller", "test_launch.py::test_an_error_of_one_rank")),
    Fault("D4", "rank 0 cannot save", "all end with 6", ("test_launch.py::test_a_full_disk_under_the_first_rank",)),
    Fault("L1", "many writers of one ledger", "no row lost or doubled, on SQLite and PostgreSQL",
          ("test_ledger.py::test_sixteen_writers",)),
    Fault("L2", "a writer killed, a lock held", "waits, then exit 8 and who holds it; rows wait in the folder",
          ("test_ledger.py::test_killed_writers", "test_ledger_faults.py::test_a_locked_ledger_names")),
    Fault("L3", "a damaged or foreign database", "refused, kept, made again by `ledger recover`",
          ("test_ledger_faults.py::test_one_flipped_bit", "test_ledger_faults.py::test_a_truncated_file",
           "test_ledger_faults.py::test_a_file_that_is_no_database")),
    Fault("L4", "a file system without shared memory", "no write-ahead log is ever used; `doctor` names it",
          ("test_ledger_faults.py::test_the_file_has_a_rollback_journal",)),
    Fault("L5", "a server away, dropping, a wrong password", "rows wait in the folder; the password is nowhere",
          ("test_ledger_faults.py::test_rows_wait_for_a_server", "test_ledger_faults.py::test_a_server_that_drops")),
    Fault("L6", "two leaderboard scores; a score that is NaN", "both kept; NULL and a flag",
          ("test_ledger.py::test_both_leaderboard_scores", "test_ledger.py::test_a_score_that_is_not_finite")),
    Fault("P1", "malformed predictions and submissions", "refused: column, count, first ids",
          ("test_submission_files.py::test_a_malformed_file", "test_prediction_files.py::test_")),
    Fault("P2", "rows in another order", "joined by id; the same bytes",
          ("test_submission_files.py::test_a_valid_file",)),
    Fault("P3", "ids of any text", "byte for byte", ("test_submission_files.py::test_a_thousand_ids",)),
    Fault("P4", "out-of-fold rows predicted twice or never", "refused", ("test_predictions.py::test_",)),
    Fault("P5", "degenerate blends", "a defined result or a refusal; streamed in bounded memory",
          ("test_blend.py::test_", "test_blend_files.py::test_")),
    Fault("P6", "averages of weights that do not fit", "refused by name", ("test_average.py::test_",)),
    Fault("P7", "ids that a spreadsheet runs", "kept and reported; made harmless in exports",
          ("test_submission_files.py::test_ids_that_a_spreadsheet", "test_ledger_exchange.py::test_texts_that_a")),
    Fault("P8", "a stale sample", "counts and the difference named",
          ("test_submission_files.py::test_a_malformed_file",)),
    Fault("P9", "submission limit; an upload that times out after success", "noted first, never sent twice unasked",
          ("test_kaggle.py::test_a_reached_limit", "test_kaggle.py::test_what_was_taken_without_an_answer",
           "test_kaggle.py::test_a_process_that_is_killed")),
    Fault("S1", "hostile names", "nothing outside the folder is touched", (f"{N}s1",)),
    Fault("S3", "secrets in the environment", "in no file, message or command line",
          (f"{N}s3", "test_kaggle.py::test_a_token_is_in_no_file")),
    Fault("S4", "listening sockets", "none; --ddp on the loopback only", (f"{N}s4",
          "test_launch.py::test_the_processes_listen")),
    Fault("S5", "code in a value", "is a value", (f"{N}s5",)),
    Fault("S6", "a library with a known hole", "PyTorch's floor is set; `doctor` names what is older",
          ("test_doctor.py::test_a_package_with_a_known_hole",)),
    Fault("S7", "modes of files", "the umask's", (f"{N}s7",)),
)  # fmt: skip
