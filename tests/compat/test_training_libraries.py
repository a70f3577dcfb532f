"""Training libraries on PyTorch that log to MLflow leave the same behind asynctrack. PyTorch takes too long to install
for every run of the tests: `pip install accelerate lightning torch transformers`, and these run, too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.compat.behind_mlflow import mlflow
from tests.compat.test_autologging import _autologging_off, compare

__all__ = ["_autologging_off"]  # a fixture, here too

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow, of the libraries, and of each about the other


@pytest.fixture
def server(sqlite_server: servers.MlflowServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mlflow.models, "infer_pip_requirements", lambda *_, **__: ["torch"])
    return sqlite_server.url


def points() -> tuple[Any, Any]:
    torch.manual_seed(7)
    features = torch.randn(32, 3)
    return features, features.sum(1, keepdim=True)


def batches() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*points()), batch_size=8)


def lightning_module() -> Any:
    lightning: Any = pytest.importorskip("lightning.pytorch")

    class Line(lightning.LightningModule):  # type: ignore[misc]  # Any
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(7)
    return Line()


def fit(**settings: Any) -> None:
    lightning: Any = pytest.importorskip("lightning.pytorch")
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=3, log_every_n_steps=1, **quiet, **settings)
    trainer.fit(lightning_module(), batches())


@pytest.mark.parametrize("synchronous", [None, False])
def test_lightning_s_logger(server: str, synchronous: bool | None) -> None:
    """With its checkpoints as artifacts."""
    loggers: Any = pytest.importorskip("lightning.pytorch.loggers")

    def program() -> None:
        experiment = mlflow.tracking.fluent._get_experiment_id()
        name = mlflow.get_experiment(experiment).name
        logger = loggers.MLFlowLogger(name, tracking_uri=server, log_model=True, synchronous=synchronous)
        fit(logger=logger)

    compare(server, program, least=20)


def test_lightning_s_autologging(server: str) -> None:
    def program() -> None:
        mlflow.pytorch.autolog()
        with mlflow.start_run():
            fit(logger=False, enable_checkpointing=False)

    compare(server, program, least=6)


def test_the_trainer_of_transformers(server: str, tmp_path: Path) -> None:
    """Its callback logs by itself; an evaluation comes after the training, in the same run."""
    transformers: Any = pytest.importorskip("transformers")

    class Line(torch.nn.Module):  # type: ignore[misc]  # Any
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": torch.nn.functional.mse_loss(self.layer(x), labels), "logits": self.layer(x)}

    data = [{"x": x, "labels": y} for x, y in zip(*points(), strict=True)]

    def program() -> None:
        torch.manual_seed(7)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "trained"),
            report_to=["mlflow"],
            logging_steps=1,
            num_train_epochs=3,
            per_device_train_batch_size=8,
            save_strategy="no",
            eval_strategy="epoch",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(Line(), arguments, train_dataset=data, eval_dataset=data[:8])
        trainer.train()
        trainer.evaluate()
        mlflow.end_run()

    compare(server, program, least=40, merged="epoch")  # the callback logs asynchronously: twice at the end


def test_accelerate_s_tracker(server: str) -> None:
    accelerate: Any = pytest.importorskip("accelerate")

    def program() -> None:
        experiment = mlflow.get_experiment(mlflow.tracking.fluent._get_experiment_id()).name
        accelerator = accelerate.Accelerator(cpu=True, log_with="mlflow")
        accelerator.init_trackers(experiment, config={"lr": 0.1, "layers": 2})
        for step in range(20):
            accelerator.log({"loss": math.exp(-step / 5), "note": "text"}, step=step)
        accelerator.end_training()

    compare(server, program, least=20)
