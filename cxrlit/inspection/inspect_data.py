"""``cxrlit inspect``: examine a data set before training on it."""

from pathlib import Path

from cxrlit.config import InspectConfig
from cxrlit.core.console import format_path, say
from cxrlit.core.errors import ConfigError
from cxrlit.core.files import write_text
from cxrlit.data.augment import build_augment
from cxrlit.data.dataset import read_data
from cxrlit.inspection.augment_sheet import SHEET_PX, draw_augment_sheet
from cxrlit.inspection.inspection_page import render_survey
from cxrlit.inspection.sample import take_sample
from cxrlit.inspection.survey import name_sample_concerns, survey_data
from cxrlit.inspection.terminal_tables import print_concerns, print_sample, print_survey


def inspect_data(config: InspectConfig) -> None:
    """Count, read a sample of the images, print the results, and write the page.

    Raises:
        ConfigError: ``out`` is a folder, or the augmentation is invalid.
        DataError: The tables cannot be read.
    """
    out = Path(config.out)
    if out.is_dir():
        raise ConfigError(f"out={config.out} is a folder: name the page, such as out={out / 'inspect.html'}")
    augment = build_augment(config.augment, SHEET_PX)
    read = read_data(config.data, config.labels, Path(config.cache_dir))
    survey = survey_data(read, config.data)
    print_survey(survey)
    sample, concerns = None, survey.concerns
    readable = survey.readable
    if not readable.all():
        say(f"Images of {', '.join(survey.data.stores)} are in a prepared store: there are no files of them to look at")
    if readable.any():
        sample = take_sample(
            survey.rows,
            survey.data.labels,
            readable,
            n_sample=config.n_sample,
            seed=config.seed,
            workers=config.num_workers,
        )
        print_sample(sample)
        concerns = [*concerns, *name_sample_concerns(sample)]
    print_concerns(concern for concern in concerns if concern not in read.notes)  # notes were printed already
    sheet = None
    if augment is not None and readable.any():
        sheet = draw_augment_sheet(survey.rows, survey.data.labels, readable, augment, config.data.resize, config.seed)
    write_text(out, render_survey(config, survey, sample, concerns, sheet))
    say(f"The page (HTML): {format_path(out)}")
