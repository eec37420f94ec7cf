"""The inputs of a model, one file a kind: array -> Tokens. One line a kind."""

from perceiver_jax.inputs import array, audio, image, point_cloud, video
from perceiver_jax.inputs import multimodal as multimodal

INPUTS = {
    "array": array.ArrayPreprocessor,
    "audio": audio.AudioPreprocessor,
    "image": image.ImagePreprocessor,
    "mel": audio.MelPreprocessor,
    "point_cloud": point_cloud.PointCloudPreprocessor,
    "video": video.VideoPreprocessor,
}
