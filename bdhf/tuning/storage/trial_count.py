"""The number of trials of a study, which can be raised but not lowered.

By then results are known, and the best trial might be among those left out.
"""

from __future__ import annotations

import optuna

from bdhf.records import InputError
from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.study.study import Study

#: User attribute of a study of Optuna: the number of trials last asked for.
_ASKED = "bdhf trials"


def refuse_fewer(study: Study, cell_study: optuna.Study) -> None:
    """Record the number of trials. Raises InputError for fewer than before."""
    wanted = study.spec.trials
    asked = int(cell_study.user_attrs.get(_ASKED, 0))
    if wanted == asked:
        return
    trials = cell_study.get_trials(deepcopy=False)
    made = len(trial_slots(trials, len(trials)).finished)
    least = max(asked, made)
    if made and wanted < least:
        setting = next((s for s in reversed(study.settings) if s.startswith("trials=")), None)
        raise InputError(
            [
                f"{f'--set {setting}' if setting else study.file}: {cell_study.study_name} has "
                f"{least} trials, of which {made} {'is' if made == 1 else 'are'} finished; the "
                f"number can only be raised: give `trials: {least}` or more, or give the study "
                "another `name`"
            ]
        )
    cell_study.set_user_attr(_ASKED, wanted)
