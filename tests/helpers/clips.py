"""Data sets of clips from a few settings, whose recipe is made here."""

from vsn.config import AugmentConfig, ClipSpec, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.dataset import VideoDataset
from vsn.data.records import RecordSet

_SECTIONS = {
    DataConfig: ("flip", "cache", "frame_template", "decoder", "flow_layout"),
    ModelConfig: ("name", "num_frames", "modality", "flow_length"),
    EvalConfig: ("protocol", "order", "seed"),
    TrainConfig: ("seed",),
}


def clip_dataset(
    records: RecordSet, *, clip: ClipSpec, train: bool, augment: AugmentConfig | None = None, **settings
) -> VideoDataset:
    """Clips of these records; `settings` are keys of the data, model, eval and train sections. No flips by default."""
    settings.setdefault("flip", "never")
    known = {key for keys in _SECTIONS.values() for key in keys}
    assert set(settings) <= known, set(settings) - known
    data, model, view, training = (
        section(**{key: settings[key] for key in keys if key in settings}) for section, keys in _SECTIONS.items()
    )
    recipe = Recipe(clip=clip, data=data, model=model, eval=view, train=training, augment=augment or AugmentConfig())
    return VideoDataset(records, recipe, train=train)
