"""Event files, read back with TensorBoard's own reader."""

import shutil
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from bdhf.experiments.observers.tensorboard import folder_name
from bdhf.experiments.observers.trackers import tracking
from tests.experiments.observers.synthetic import LABELS, RUNS, row, tell_interleaved


@pytest.fixture
def track(tmp_path):
    """Opens the tracker on one results folder; a warning fails the test."""
    return lambda: tracking(["tensorboard"], tmp_path, "small", LABELS, pytest.fail)


def events(folder, arm):
    """What TensorBoard reads of one run."""
    run_id = RUNS[arm].run_id
    path = folder / "trackers" / "tensorboard" / folder_name(LABELS[run_id], run_id)
    return EventAccumulator(str(path)).Reload()


def curve(read, tag):
    """The points of one scalar: (update, value)."""
    return [(point.step, point.value) for point in read.Scalars(tag)]


def settings_of(read):
    """What the page of hyperparameters reads of a run: tag -> content."""
    return read.PluginTagToContent(metadata.PLUGIN_NAME)


def test_interleaved_runs_are_curves_of_their_own(track, tmp_path):
    """Each run's folder holds its own values against the update, and no other run's."""
    with track() as tracker:
        tell_interleaved(tracker)

    adam, hf = events(tmp_path, "adam"), events(tmp_path, "block_hf")
    assert curve(adam, "loss/val") == [(0, 0.5), (2, pytest.approx(0.4))]
    assert curve(adam, "cost/seconds") == [(0, 0.0), (2, pytest.approx(0.1))]
    assert curve(hf, "accuracy/val") == [(2, 0.75)]
    assert [update for update, _ in curve(hf, "diagnostics/damping")] == [2, 4]


def test_what_was_not_measured_is_left_out(track, tmp_path):
    """A NaN is no point, and a column of NaN no scalar."""
    with track() as tracker:
        tell_interleaved(tracker)

    hf = events(tmp_path, "block_hf")
    assert [update for update, _ in curve(hf, "loss/val")] == [0, 2]
    assert set(hf.Tags()["scalars"]) == {"loss/val", "accuracy/val", "diagnostics/damping"}


def test_the_end_of_a_run_is_a_text_at_its_last_update(track, tmp_path):
    """Status and reason stand where the curve stops."""
    with track() as tracker:
        tell_interleaved(tracker)

    (text,) = events(tmp_path, "block_hf").Tensors("outcome/text_summary")
    assert text.step == 4
    assert text.tensor_proto.string_val == [b"diverged: val_loss is nan at update 4"]


def test_settings_are_hyperparameters(track, tmp_path):
    """Numbers are numbers, texts texts, lists JSON; no run says what the settings of all are."""
    with track() as tracker:
        tell_interleaved(tracker)

    content = settings_of(events(tmp_path, "block_hf"))
    start = content[metadata.SESSION_START_INFO_TAG]
    hparams = metadata.parse_session_start_info_plugin_data(start).hparams
    assert hparams["optimizer.lr"].number_value == 0.5
    assert hparams["optimizer.solver.max_iters"].number_value == 5
    assert hparams["optimizer.partition.type"].string_value == "groups"
    assert hparams["problem.encoder"].string_value == "[784, 12, 4]"
    assert metadata.EXPERIMENT_TAG not in content


def test_only_a_run_with_an_outcome_has_succeeded(track, tmp_path):
    """A diverged run has an end; a failed run has none."""
    with track() as tracker:
        tell_interleaved(tracker)
    hf = events(tmp_path, "block_hf")
    with track() as tracker:
        tracker.started(RUNS["block_hf"])
        tracker.finished(RUNS["block_hf"], "oom", "out of memory")
    failed = events(tmp_path, "block_hf")

    assert metadata.SESSION_END_INFO_TAG in settings_of(hf)
    assert metadata.SESSION_END_INFO_TAG not in settings_of(failed)


def test_a_run_under_way_can_be_looked_at(track, tmp_path):
    """A row is on the disk at once."""
    with track() as tracker:
        tracker.started(RUNS["adam"])
        tracker.evaluated(RUNS["adam"], row(0, 0.5))

        assert curve(events(tmp_path, "adam"), "loss/val") == [(0, 0.5)]


def test_a_run_that_is_made_again_replaces_its_curve(track, tmp_path):
    """The curve of an interrupted run is removed when the run restarts."""
    with track() as tracker:
        tracker.started(RUNS["adam"])
        tracker.evaluated(RUNS["adam"], row(0, 0.5))
        tracker.evaluated(RUNS["adam"], row(2, 0.45))
    with track() as tracker:
        tell_interleaved(tracker)

    assert curve(events(tmp_path, "adam"), "loss/val") == [(0, 0.5), (2, pytest.approx(0.4))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_that_goes_away_costs_no_run(tmp_path):
    """TensorBoard writes in a thread; its failure is one warning, and nothing hangs."""
    lines, others = [], set(threading.enumerate())
    with tracking(["tensorboard"], tmp_path, "small", LABELS, lines.append) as tracker:
        tracker.started(RUNS["adam"])
        shutil.rmtree(tmp_path / "trackers")
        for update in range(40):  # more than the queue of its writer holds
            tracker.evaluated(RUNS["adam"], row(update, 0.5))
        tracker.finished(RUNS["adam"], "done", "budget of 40 updates spent")
    for thread in set(threading.enumerate()) - others:
        thread.join()  # so that its traceback belongs to this test

    (line,) = lines
    assert "tracker tensorboard " in line
    assert "FileNotFoundError" in line


@pytest.mark.parametrize("label", ["hf partition=[0, '../x'] seed 1", "é" * 300, "a/b seed 0 = c"])
def test_any_label_is_one_folder(label, tmp_path):
    """Any label gives a valid folder inside that of the tracker."""
    path = tmp_path / folder_name(label, "0123456789abcdef")

    path.mkdir()

    assert path.parent == tmp_path
