"""Preprocessors: the device side of a modality, arrays -> Tokens. One line a modality."""

from perceiver_jax.preprocessors import array
from perceiver_jax.preprocessors import audio
from perceiver_jax.preprocessors import image
from perceiver_jax.preprocessors import multimodal as multimodal
from perceiver_jax.preprocessors import point_cloud
from perceiver_jax.preprocessors import video

PREPROCESSORS = {
    "array": array.ArrayPreprocessor,
    "audio": audio.AudioPreprocessor,
    "image": image.ImagePreprocessor,
    "mel": audio.MelPreprocessor,
    "point_cloud": point_cloud.PointCloudPreprocessor,
    "video": video.VideoPreprocessor,
}
