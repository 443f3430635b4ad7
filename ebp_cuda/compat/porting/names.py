"""What is called otherwise since 2016, and what has no new name."""

from __future__ import annotations

RENAMED = {
    "scipy.misc.imread": "imageio.v2.imread",
    "scipy.misc.imsave": "imageio.v2.imwrite",
    "scipy.misc.toimage": "PIL.Image.fromarray",
    "scipy.misc.comb": "scipy.special.comb",
    "scipy.misc.factorial": "scipy.special.factorial",
    "scipy.misc.logsumexp": "scipy.special.logsumexp",
    "scipy.misc.face": "scipy.datasets.face",
    "scipy.misc.ascent": "scipy.datasets.ascent",
    "skimage.color.rgb2grey": "skimage.color.rgb2gray",
    "skimage.color.grey2rgb": "skimage.color.gray2rgb",
    "skimage.filter": "skimage.filters",
    "skimage.filters.gaussian_filter": "skimage.filters.gaussian",
    "skimage.measure.compare_mse": "skimage.metrics.mean_squared_error",
    "skimage.measure.compare_nrmse": "skimage.metrics.normalized_root_mse",
    "skimage.measure.compare_psnr": "skimage.metrics.peak_signal_noise_ratio",
    "skimage.measure.compare_ssim": "skimage.metrics.structural_similarity",
    "skimage.measure.structural_similarity": "skimage.metrics.structural_similarity",
    "skimage.morphology.watershed": "skimage.segmentation.watershed",
    "numpy.alltrue": "numpy.all",
    "numpy.bool": "bool",
    "numpy.complex": "complex",
    "numpy.cumproduct": "numpy.cumprod",
    "numpy.float": "float",
    "numpy.float_": "numpy.float64",
    "numpy.Inf": "numpy.inf",
    "numpy.infty": "numpy.inf",
    "numpy.int": "int",
    "numpy.NaN": "numpy.nan",
    "numpy.object": "object",
    "numpy.product": "numpy.prod",
    "numpy.sometrue": "numpy.any",
    "numpy.str": "str",
    "numpy.unicode_": "numpy.str_",
    "time.clock": "time.perf_counter",
}
"""Full name, or that of a module -> the one that it has now."""

GONE = frozenset(("scipy.misc", "cv2.cv"))
"""Modules of which nothing is left, so that their import goes as well."""

RENAMED_KEYWORDS = {"skimage": {"as_grey": "as_gray"}}
"""Package -> keyword of its functions -> its name now."""

_SMOOTHED = "smooths before it shrinks since 0.15; anti_aliasing=False, mode='constant' is 2016's"

LEFT = {
    "scipy.misc.imresize": "gone from SciPy; caffe.io.resize_image(image, (height, width)) does it for floats",
    "scipy.misc.imrotate": "gone from SciPy; PIL.Image.Image.rotate",
    "scipy.misc.derivative": "gone from SciPy",
    "skimage.transform.resize": _SMOOTHED,
    "skimage.transform.rescale": _SMOOTHED,
    "matplotlib.pyplot.hold": "gone from Matplotlib, where everything is held now",
    "pickle.load": "arrays that Python 2 pickled need encoding='latin1', and the file mode 'rb'",
    "pickle.loads": "arrays that Python 2 pickled need encoding='latin1'",
    "cv2.cv": "gone from OpenCV",
}  # fmt: skip
"""Full name -> why nothing was done about it."""

INTEGER_ARGUMENTS = frozenset((
    "range", "numpy.zeros", "numpy.ones", "numpy.empty", "numpy.full", "numpy.tile", "numpy.repeat",
))  # fmt: skip
"""Functions whose arguments count something, so that a division in them was one of integers."""

INTEGER_METHODS = frozenset(("reshape", "resize"))
"""Methods of which the same holds."""
