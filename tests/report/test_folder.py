"""Reading the folders of runs and sweeps."""

from jax_s6.report.folder import read_folder


def test_a_sweeps_folder_gives_lanes_and_results(sweep):
    folder = read_folder(sweep)
    labels = [lane["label"] for lane in folder.lanes]
    assert labels[:2] == ["learning rate 0.1, seed 0", "learning rate 0.1, seed 1"]
    assert folder.lanes[0]["metrics"] == {"test_loss": [1.0, 0.5], "test_accuracy": [0.1, 0.2]}
    assert [result["diverged"] for result in folder.results] == [False, False, False, True]
    assert folder.config.optimizer.learning_rate == 0.5 and folder.summary["test_accuracy"] == 0.95
