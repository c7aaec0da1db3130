"""The figures of a study, one a file: `StudyEvidence` in, drawings out."""
