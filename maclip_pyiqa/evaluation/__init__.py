"""Agreement between metrics and human ratings: `maclip-pyiqa evaluate`, `ablate` and `fit` as a library.

    datasets      images and their ratings: pyiqa's data sets by a protocol, or a list of your own
    metrics       what is computed of an image and cached: features of this package's metrics, scores of others; scores
                  that other programs wrote
    measure       time and memory that scoring an image takes
    cache         the files of a results folder
    known_answers generated images with published scores: `maclip-pyiqa weights --verify`
    evaluate      one pass over data sets, in one process or under torchrun
    correlations  SRCC, KRCC, PLCC, the logistic fit, bootstrap intervals
    tables        results.csv, results.md, plots, and the published numbers beside ours
    ablations     variants of MA-CLIP, scored from cached features
    fitting       a head or the constants, fitted to ratings and cross-validated

Importing it imports none of them. `pip install 'maclip_pyiqa[evaluation]'` installs what they need.
"""
