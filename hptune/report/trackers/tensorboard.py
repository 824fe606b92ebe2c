"""TensorBoard: event files in the run directory, one folder a trial, so that its HParams view compares them.

They are written by the tensorboard package alone: its summaries by way of torch would need torch where nothing else does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from hptune.analysis.recommendation import Conclusion
from hptune.report.run import Run
from hptune.report.tables import stage_columns, stage_rows, to_markdown
from hptune.report.trackers.tracker import findings, now, parameters, points, results
from hptune.store.layout import file_name
from hptune.trial import TrialRecord


class TensorBoard:
    """`tensorboard --logdir RUN_DIR` shows it, or `--logdir runs` all runs."""

    place = "beside"

    def __init__(self, folder: Path, _title: str, _known: str) -> None:
        self._folder = folder
        self._writer = EventFileWriter(str(folder))

    def trial(self, stage: str, record: TrialRecord, value: Any) -> None:
        """Curve and results of a trial, with its parameters for the HParams view."""
        folder = self._folder / file_name(stage) / record.trial_id
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it wrote
        writer = EventFileWriter(str(folder))
        try:
            self._write(writer, _started(parameters(stage, record, value)))
            for step, values in points(record):
                self._write(writer, _scalars(values), step)
            self._write(writer, _scalars({f"final/{name}": value for name, value in results(record).items()}), record.steps)
            self._write(writer, _ended(record.status))
        finally:
            writer.close()

    def conclusion(self, conclusion: Conclusion) -> None:
        """A stage's sentence and table, as text."""
        table = to_markdown(stage_columns(conclusion), stage_rows(conclusion))
        self._write(self._writer, _text(conclusion.stage, f"{conclusion.sentence}\n\n{table}"))
        self._writer.flush()

    def result(self, run: Run) -> None:
        """What was found, as text, and the figures."""
        listed = "\n".join(f"- **{name}**: {sentence}" for name, sentence in findings(run).items())
        self._write(self._writer, _text("summary", f"{listed}\n\nreport: {run.layout.report}"))
        for path in sorted(run.layout.figures.glob("*.png")):
            image = Summary.Image(encoded_image_string=path.read_bytes())
            self._write(self._writer, Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=image)]))

    def close(self) -> None:
        """Write out what is held back."""
        self._writer.close()

    def _write(self, writer: EventFileWriter, summary: Summary, step: int = 0) -> None:
        writer.add_event(Event(wall_time=now(), step=step, summary=summary))


def _scalars(values: dict[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _text(tag: str, content: str) -> Summary:
    tensor = TensorProto(dtype="DT_STRING", string_val=[content.encode()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag=tag, metadata=create_summary_metadata(tag, content), tensor=tensor)])


def _started(values: dict[str, str | int | float]) -> Summary:
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=now())
    for name, value in values.items():
        if isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    return _hparams(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=info))


def _ended(status: str) -> Summary:
    state = api_pb2.STATUS_SUCCESS if status == "completed" else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=state, end_time_secs=now())
    return _hparams(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info))


def _hparams(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    content = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION)
    content.MergeFrom(data)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
