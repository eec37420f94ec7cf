"""Flags of a run that is quick to compile."""

MODEL = (  # One cross-attend and one latent Transformer of one layer.
    "--config.model.encoder.layers=('cross_attend_0','latent_transformer_0')",
    "--config.model.encoder.num_self_attends=1",
    "--config.model.encoder.num_latents=5",
    "--config.model.encoder.latent_channels=24",
    "--config.data.batch_size=8",
)
DIGITS = (  # 40 to train on and 7 to test, of imagenet.py:mini.
    "--config.data.train_split=train[:40]",
    "--config.data.test_split=test[:4]+test[500:503]",
)
