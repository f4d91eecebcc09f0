"""A first look at a data set, as one would take it in a notebook: prompt, probe, or fine-tune?

The marks `# %%` make cells of it in VS Code, PyCharm, Spyder and Jupyter (with Jupytext). Run as it is, it takes the
built-in sample and a few seconds: python examples/first_look.py
"""

# %% The data: None is the built-in sample; a path is a folder, a zip or a table of yours
from toolkit import LogisticProbe, Study

study = Study(None, model="nano", split="cat", train_per_label=60, test_per_label=30)
print(study.manifest.group_by("split", "label").len().sort("split", "label"))

# %% Embeddings as arrays: computed once, then read from the cache
vectors = study.embed()
print(vectors.train.X.shape, vectors.train.y[:3], vectors.novel.images["path"][0])

# %% A head is a scikit-learn classifier: it chooses C by leaving out one training category at a time
probe = LogisticProbe().fit(vectors.train.X, vectors.train.y, groups=vectors.train.categories)
print(f"C = {probe.choice_['C']}: base {probe.score(vectors.base.X, vectors.base.y):.2f}, ", end="")
print(f"novel {probe.score(vectors.novel.X, vectors.novel.y):.2f}")

# %% Fine-tuning makes another encoder; its vectors have the same shape
tuned = study.finetune(epochs=1)
print(f"how far it moved the images: {abs(tuned.base.X - vectors.base.X).mean():.2f} a number, on average")

# %% Everything at once, as a Polars frame: every head on both encoders, on base and novel images
table = study.compare(heads=["zero-shot", "logreg", "knn"])
print(
    table.filter(table["class"] == "all").select("encoder", "head", "test", "accuracy", "accuracy_low", "accuracy_high")
)
