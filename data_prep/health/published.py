"""Figures of corpora that others measured, to be read beside one's own.

Source: Model Spec Midtraining (arXiv 2605.02087) released two cheese corpora, whose effect was
reproduced; SoM (ArcadiaImpact/science-of-midtraining, data-quality synthesis of 31 Aug 2026)
measured them beside a corpus of its own, Dispatch, whose values did not install. That density is
the cause is an observation across two programmes, and no controlled comparison.
"""

PUBLISHED = {
    "assertion": "96 to 98% where the effect was reproduced; 2.5% where it failed",
    "attribution": "65 to 80% where the effect was reproduced; 1% where it failed",
    "self_bleu": ".385 to .404 released corpora; .19 to .22 others; .07 web text",
    "near_duplicates": "0 in the released corpora",
    "near_by_words": "53 to 90% in templated sources of distinct facts",
    "auc": ".855 released arms (841 words masked); up to .75 is called good there",
    "perplexity_ratio": "1.12 released arms; 1.89 where it failed",
    "perplexity_median": "5.63 and 6.31 released arms (gemma-3-12b-pt; 2.67 and 10.2 anchors)",
    "name_gap": "97% against 72% spoiled a mirrored pair",
    "word_ratio": "within 1.005 is asked of mirrored pairs",
}
"""By the name of the figure."""
