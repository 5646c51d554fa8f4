"""The HINet network and its configuration.

"Hierarchical Interaction Network for Video Object Segmentation from Referring Expressions", BMVC 2021. Docstrings cite
the supplementary material as "supplement, section N"; choices on which it is silent are marked "our reading".
"""
