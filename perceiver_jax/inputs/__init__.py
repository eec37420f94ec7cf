"""The inputs of a model, one file a kind: array -> Tokens. One line a kind."""

from perceiver_jax.inputs import array, audio, frames, image, label, point_cloud, text, video
from perceiver_jax.inputs import multimodal as multimodal

INPUTS = {
    "array": array.ArrayPreprocessor,
    "audio": audio.AudioPreprocessor,
    "frames": frames.FramesPreprocessor,
    "image": image.ImagePreprocessor,
    "label": label.LabelPreprocessor,
    "mel": audio.MelPreprocessor,
    "point_cloud": point_cloud.PointCloudPreprocessor,
    "text": text.TextPreprocessor,
    "video": video.VideoPreprocessor,
}
