"""Preprocessors: the device side of a modality, arrays -> Tokens. One line a modality."""

from perceiver_jax.preprocessors import array, audio, image, point_cloud, video
from perceiver_jax.preprocessors import multimodal as multimodal

PREPROCESSORS = {
    "array": array.ArrayPreprocessor,
    "audio": audio.AudioPreprocessor,
    "image": image.ImagePreprocessor,
    "mel": audio.MelPreprocessor,
    "point_cloud": point_cloud.PointCloudPreprocessor,
    "video": video.VideoPreprocessor,
}
