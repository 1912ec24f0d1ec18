"""Every reason for which a row may be left out: the closed list, with one sentence on what it means and one on what to do.

A `quiet` reason takes a well-formed row that a step of the recipe did not want; the others are faults of the file, and
`bad_rows: refuse` stops on them. `stage` says at which step of the funnel the row was lost. Knows nothing of the steps
themselves: they give codes, and the ledger refuses a code that is not here. Next: `accounting.py`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["parsed", "clean", "language", "private", "unique", "leak_free", "length", "balanced"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row was left out, for people."""

    code: str
    stage: Stage
    means: str
    do: str
    quiet: bool = False


_TABLE = (
    # The file and its rows as text
    Reason("not_utf8", "parsed", "The row is not text in the file's encoding.", "Save the file as UTF-8."),
    Reason("not_json", "parsed", "The row is not JSON.", "Mend that line, or export the file again as JSON Lines."),
    Reason("not_object", "parsed", "The row is JSON, but not an object with keys.", "Write each row as {…}."),
    Reason("duplicate_keys", "parsed", "A key stands twice in the row, so one of its values would be lost.", "Leave one of the two."),
    Reason("row_too_large", "parsed", "The row is larger than a row may be.", "Split it; perhaps line breaks between rows are missing."),
    Reason("too_deep", "parsed", "The row is nested too deeply to be read.", "Write the text of each turn as a plain string."),
    Reason("lone_surrogate", "parsed", "A text holds half a character, which cannot be UTF-8.", "Export again without \\ud800 to \\udfff."),
    Reason("truncated_file", "parsed", "The file ends in the middle of a row.", "Copy or download the file again; it is not whole."),
    Reason("damaged_file", "parsed", "The file cannot be read to its end.", "Copy it again; what follows was not read."),
    Reason("second_list", "parsed", "The file holds more than one list of rows.", "Put each list into a file of its own."),
    Reason("not_csv", "parsed", "The row cannot be read as a line of a table.", "See whether a quote is left open."),
    Reason("wrong_columns", "parsed", "The row has more or fewer fields than the header.", "Put quotes round fields with commas in them."),
    # What kind of example it is
    Reason("unknown_format", "parsed", "The row's keys fit no known format.", "Rename them, or map them with the source's `columns`."),
    Reason("wrong_stage", "parsed", "The row is of another kind than this list takes.", "Move the file to the fitting list of the recipe."),
    Reason("tool_calls", "parsed", "The row holds tool calls.", "Set the source to keep them, or leave these rows out."),
    Reason("image_content", "parsed", "A turn holds a picture, sound or file.", "Text models learn from text only: leave such turns out."),
    Reason("turn_weight", "parsed", "A turn asks not to be learnt from, which is not supported.", "Cut it off, or drop its `weight`."),
    # Parts that are missing or empty
    Reason("empty_question", "parsed", "The question is empty.", "Fill it in, or delete the row."),
    Reason("empty_answer", "parsed", "The answer is empty, so there is nothing to learn.", "Fill it in, or delete the row."),
    Reason("empty_content", "parsed", "A turn is empty.", "Fill it in, or delete the turn."),
    Reason("no_instruction", "parsed", "`instruction` is missing or is not text.", "Add it, or map another column to it."),
    Reason("no_input", "parsed", "`input` is not text.", "Write it as a string, or leave it out."),
    Reason("no_output", "parsed", "`output` is missing or is not text.", "Add the answer, or map another column to it."),
    Reason("no_system", "parsed", "`system` is not text.", "Write it as a string, or leave it out."),
    Reason("no_history", "parsed", "`history` is not a list of question and answer pairs.", "Write it as [[question, answer], …]."),
    Reason("no_prompt", "parsed", "`prompt` is missing or is not text.", "Add it, or map another column to it."),
    Reason("no_completion", "parsed", "`completion` is missing or is not text.", "Add the answer, or map another column to it."),
    Reason("no_context", "parsed", "The context's column is missing or is not text.", "Add it, or correct the source's `columns`."),
    Reason("no_answer", "parsed", "The answer's column is missing or is not text.", "Add it, or correct the source's `columns`."),
    Reason("no_chosen", "parsed", "`chosen`, the preferred answer, is missing or is not text.", "Add it, or delete the row."),
    Reason("no_rejected", "parsed", "`rejected`, the worse answer, is missing or is not text.", "Add it, or delete the row."),
    Reason("no_label", "parsed", "The label is missing or is neither true nor false.", "Write it as true or false."),
    Reason("no_messages", "parsed", "`messages` is missing, empty or not a list.", "Write it as a list of turns with role and content."),
    Reason("no_conversations", "parsed", "`conversations` is missing, empty or not a list.", "Write it as a list of turns."),
    Reason("no_role", "parsed", "A turn does not say who speaks.", "Give every turn a role."),
    Reason("no_content", "parsed", "A turn has no text.", "Give every turn its text in `content`."),
    Reason("no_assistant", "parsed", "The assistant never speaks, so there is nothing to learn.", "Add its answer, or delete the row."),
    Reason("no_final_answer", "parsed", "The last turn is not the assistant's.", "Add its answer, or cut the turns after its last one."),
    Reason("no_question", "parsed", "The user does not speak where the user must.", "Begin with a question; end a pair's prompt with one."),
    # Turns in an order that no template can render
    Reason("late_system", "parsed", "A system turn stands after the first turn.", "Move it to the front, or into the user's turn."),
    Reason("two_systems", "parsed", "There are two system texts.", "Join them into the first turn."),
    Reason("roles_order", "parsed", "A turn stands where its role cannot speak.", "Restore the turn that is missing before it."),
    Reason("roles_repeat", "parsed", "Two turns in a row are of the same role.", "Join them, or restore the turn between them."),
    Reason("unknown_role", "parsed", "A turn has a role that no template knows.", "Use system, user, assistant or tool."),
    Reason("same_answers", "parsed", "The preferred and the rejected answer are the same.", "Correct one of them, or delete the pair."),
    Reason("prompts_differ", "parsed", "The two answers of a pair belong to different questions.", "Pair answers to the same one."),
    # Steps of the recipe
    Reason("empty_after_cleaning", "clean", "Nothing was left after cleaning.", "See the row; mark-up without text teaches nothing.", True),
    Reason("language", "language", "The row is in a language the recipe does not want.", "Add it to `languages`, if it is wanted.", True),
    Reason("personal_data", "private", "The row holds personal data and the recipe drops such rows.", "Mask them instead.", True),
    Reason("duplicate", "unique", "The same row was there before.", "If there are many, see whether an export ran twice.", True),
    Reason("near_duplicate", "unique", "Almost the same row was there before.", "See in a few that they say the same.", True),
    Reason("leaked", "leak_free", "The row overlaps a prompt of an evaluation suite.", "Keep the two apart at the origin.", True),
    Reason("template", "length", "The chat template refuses these turns.", "Read the detail; the template decides which roles may follow."),
    Reason("no_loss", "length", "No token of the row would be learnt from.", "Give the assistant a text that survives the template."),
    Reason("too_short", "length", "The row is shorter than the recipe wants.", "Lower the bound, if such answers are wanted.", True),
    Reason("too_long", "length", "The row is longer than the model is trained on.", "Raise `model.max_length`, or split the rows.", True),
    Reason("capped", "balanced", "The row's source or topic has reached its cap.", "Raise the cap, if more of it is wanted.", True),
    Reason("sampled_out", "balanced", "The weights ask for fewer rows of this kind.", "Raise the weight, if more of it is wanted.", True),
)
REASONS: dict[str, Reason] = {reason.code: reason for reason in _TABLE}

# Not turned away but left aside by the recipe's own choice: such rows say nothing of the quality of the data.
CHOSEN_AWAY = frozenset(reason.code for reason in _TABLE if reason.stage == "balanced")
