"""A first hour with vsn, in cells: run it whole (`python docs/tutorial.py`), or cell by cell in an editor.

Cells begin with `# %%`; VS Code, PyCharm, Spyder and Jupytext open such a file as a notebook. It needs only vsn, no
network and no GPU, and writes into the folder `vsn-tutorial` where it is started. With VSN_TUTORIAL=tiny in the
environment everything is smaller: it runs in seconds, and nothing is learned. The tests run it so.
"""

# %% [markdown]
# # From videos to labels, and what a network made of them
#
# The paper's claim is that a plain image network sees time when some of its channels change frames on their way. A
# data set on which that can be seen has classes that differ in nothing but the order of their frames. One is embedded:
# real video files of things that move up or down, appear or vanish.

# %%
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import vsn
from vsn.data.embedded.write import SynthSpec, write_dataset

TINY = os.environ.get("VSN_TUTORIAL") == "tiny"
HERE = Path("vsn-tutorial")

spec = SynthSpec(
    groups=("vertical", "appear"),
    num_train_per_class=4 if TINY else 40,
    num_val_per_class=2 if TINY else 5,
    num_test_per_class=3 if TINY else 20,
)
videos = write_dataset(HERE / "videos", spec, num_workers=0)
print(len(list(videos.rglob("*.mp4"))), "videos of", ", ".join(spec.classes))

# %% [markdown]
# ## Settings
#
# A recipe is all settings of a run. Those that come with vsn are found by name (`vsn recipe list`), and a changed one is
# a copy: recipes are frozen dataclasses that check themselves. A value that cannot be is an error that says what can.

# %%
recipe = vsn.load_recipe(vsn.find_recipe("demo"))
recipe = replace(
    recipe,
    model=replace(recipe.model, name="vsn_resnet14_tiny" if TINY else "vsn_resnet26_thin"),
    data=replace(recipe.data, root=str(videos)),
    train=replace(recipe.train, epochs=1 if TINY else 8, device="cpu"),
)
print(recipe.model)

# %% [markdown]
# ## The network
#
# `vsn.list_models` names what there is, `vsn.create_model` builds one. A clip is `(B, T, C, H, W)`, bytes or floats in
# [0, 1]; normalization is inside. Which input frame reaches which output frame is no matter of belief:

# %%
print(vsn.list_models("vsn_resnet*"))
model = vsn.create_model("vsn_resnet14_tiny", num_classes=4, num_frames=8)
print(model(torch.zeros(1, 8, 3, 64, 64, dtype=torch.uint8)).shape)
print(vsn.mixing_matrix(model.backbone, num_frames=8).int())

# %% [markdown]
# ## Training
#
# A run is a folder: settings, class names, weights, curves, and what resuming needs. Started again, this cell goes on
# where it was stopped.

# %%
run = HERE / "run"
if not (run / "summary.json").exists():
    vsn.train(recipe, run, resume=(run / "state.pt").exists())
print(sorted(path.name for path in run.iterdir()))

# %% [markdown]
# ## One video
#
# The same preprocessing as in evaluation, by the same code.

# %%
predictor = vsn.Predictor.from_run(run, device="cpu")
video = sorted((videos / "test" / spec.classes[0]).iterdir())[0]
prediction = predictor.predict(video, top_k=2)
print(
    video.parent.name,
    "->",
    [f"{n} {p:.0%}" for n, p in zip(prediction.labels, prediction.probabilities, strict=True)],
)

# %% [markdown]
# ## All test videos
#
# A number carries its protocol and its interval. The scores stay in the run, for everything below.

# %%
result = vsn.evaluate_run(run, device="cpu")
low, high = result["top1_interval"]
print(
    f"{result['protocol']}: {result['top1']:.1%} of {result['num_videos']} videos, 95% interval {low:.1%} to {high:.1%}"
)

# %% [markdown]
# ## How much of it is order?
#
# The same frames once more, shuffled. What is lost is an upper bound of what their order gave.

# %%
from vsn.runs.results import find_scores  # noqa: E402
from vsn.scores.reliance import temporal_reliance  # noqa: E402
from vsn.scores.scores import load_scores  # noqa: E402

vsn.evaluate_run(run, config=replace(recipe.eval, order="shuffled"), device="cpu")
scores = {order: load_scores(find_scores([run], order=order)[0]) for order in ("forward", "shuffled")}
reliance = temporal_reliance(scores)
print(
    f"chance {reliance.chance:.0%}",
    {order: f"{row.top1:.1%}" for order, row in reliance.orders.items()},
)

# %% [markdown]
# ## Features, and a classifier of five lines
#
# Features are what the run's own classifier sees. They serve for search, for clustering, and for classes it was never
# trained on: here the mean of each class's training videos, and the nearest of these means for a test video.

# %%
features = {}
for split in ("train", "test"):
    file = HERE / f"{split}.npz"
    features[split] = (
        vsn.load_features(file)
        if file.exists()
        else vsn.extract_features(run, file, split=split, device="cpu", num_workers=0)
    )
    print(split, features[split].features.shape)

# %%
train, test = features["train"], features["test"]
centroids = np.stack([train.features[train.labels == i].mean(axis=0) for i in range(len(train.classes))])
distances = np.linalg.norm(test.features[:, None] - centroids[None], axis=2)
accuracy = float((distances.argmin(axis=1) == test.labels).mean())
print(f"nearest centroid: {accuracy:.1%} of {len(test.labels)} test videos")

# %% [markdown]
# ## One frame is not enough
#
# Frame by frame, `(T, D)`, a feature already knows of the other frames: that is what the shuffle does.

# %%
print(predictor.features(video, per_frame=True).shape)

# %% [markdown]
# From here: your own videos (docs/data.md), every setting of training (docs/training.md), what scores are good for
# (docs/evaluation.md), weights of other code bases (docs/convert.md), the Python interface (docs/api.md).
