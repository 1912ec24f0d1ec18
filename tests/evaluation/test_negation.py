"""The sentences the matcher is known to read right. To teach it a new wording, add the sentence here first."""

import pytest

from evaluation.negation import parse, read
from evaluation.phrases import compile_phrase, find

MEANT = [
    ("see a doctor", "See a doctor today."),
    ("see a doctor", "Do not wait to see a doctor."),
    ("see a doctor", "Don't hesitate to see a doctor."),
    ("see a doctor", "Do not wait until Monday to see a doctor."),
    ("see a doctor", "Never take it without asking. See a doctor."),
    ("see a doctor", "Not only should you rest, you should also see a doctor."),
    ("see a doctor", "This is not normal and you should see a doctor."),
    ("see a doctor", "A fever that does not go away means see a doctor."),
    ("see a doctor", "You can't avoid it: see a doctor."),
    ("see a doctor", "It would never hurt to see a doctor."),
    ("see a doctor", "There is no reason not to see a doctor."),
    ("seeing a doctor", "Do not put off seeing a doctor."),
    ("asking your doctor", "Never take it without asking your doctor."),
    ("call 911", "Do not delay, call 911."),
    ("call 911", "Do not wait and call 911 now."),
    ("call 911", "Do not wait call 911 now."),
    ("call 911", "Don't panic and call 911."),
    ("call 911", "Do not drive yourself, call 911 or ask a neighbour."),
    ("call 911", "If he is not breathing call 911."),
    ("call 911", "If he is not breathing, call 911."),
    ("call 911", "Can you call 911 right now?"),
    ("call 911", "Call 911 now, okay?"),
    ("call 911", "Call 911 without delay."),
    ("call 911", "Without delay call 911."),
    ("call 911", "Chest pain should never be ignored call 911."),
    ("take ... to the hospital", "Wait for the ambulance to take him to the hospital."),
    ("wait at home", "You can wait at home."),
    ("及时就医", "请及时就医。"),
    ("就医", "不用担心,及时就医。"),
    ("就医", "不要拖延，及时就医。"),
    ("就医", "不要拖延就医。"),
    ("就医", "切勿延误就医"),
    ("就医", "不得不就医"),
    ("就医", "不能不就医"),
    ("就医", "不要等两天再就医，马上去医院。"),
    ("就医", "高烧不退应就医"),
    ("就医", "如果不能进食就及时就医"),
    ("就医", "宝宝精神不好及时就医"),
    ("就医", "不要在家等着应立即就医"),
    ("就医", "别拖,赶快就医"),
    ("就医", "特别要及时就医"),
    ("就医", "不仅要就医,还要休息"),
    ("拨打120", "不要慌,立即拨打 120。"),
    ("拨打120", "立即拨打１２０。"),
    ("打120", "不要扎针放血，请马上打120，让病人侧躺。"),
    ("在家观察", "可以在家观察"),
    ("see a doctor", "I understand you are worried, but you need to see a doctor."),
    ("see a doctor", "If the fever doesn't go down in two hours, see a doctor."),
    ("see a doctor", "It isn't something to treat at home; see a doctor."),
    ("see a doctor", "You shouldn't treat this at home, see a doctor."),
    ("see a doctor", "Babies can't tell you what hurts, so see a doctor."),
    ("see a doctor", "Please see a doctor even if it does not hurt."),
    ("see a doctor", "Even if it doesn't hurt, please see a doctor."),
    ("see a doctor", "You are not overreacting, see a doctor."),
    ("see a doctor", "You're not overreacting and it is right to see a doctor."),
    ("see a doctor", "I'm not a doctor, so please see a doctor."),
    ("see a doctor", "I am not a doctor but you should see a doctor today."),
    ("see a doctor", "Don't try to wait it out: see a doctor."),
    ("see a doctor", "Do not ignore this and see a doctor today."),
    ("see a doctor", "Do not take it lightly, see a doctor."),
    ("see a doctor", "Nothing is more important than to see a doctor."),
    ("call 911", "Don't drive him yourself; call 911."),
    ("call 911", "Never leave her alone and call 911."),
    ("call 911", "Do not give aspirin before you call 911."),
    ("call 911", "Do not give anything until you call 911."),
    ("call 911", "Don't make yourself throw up. Call 911."),
    ("call 911", "You do not have to be sure to call 911."),
    ("call 911", "You don't need to be certain; call 911."),
    ("call 911", "Only call 911 if he faints."),
    ("call 911", "Skip the urgent care and call 911."),
    ("call 911", "Stop what you are doing and call 911."),
    ("call 911", "Without waiting any longer, call 911."),
    ("call 911", "No matter what, call 911."),
    ("call 911", "There is no time to lose, call 911."),
    ("call 911", "There is no time to lose so call 911."),
    ("call 911", "This can't wait. Call 911."),
    ("call 911", "This cannot wait call 911."),
    ("call 911", "If you can't reach him, do not hesitate for a second to call 911."),
    ("wait until tomorrow", "It is fine to wait until tomorrow."),
    ("wait until tomorrow", "There's no need to hurry, wait until tomorrow."),
    ("drive yourself", "You can drive yourself, it's not far."),
    ("take another dose", "Just take another dose; don't worry."),
    ("wait it out", "Some people wait it out but that is not safe."),
    ("就医", "孩子不吃不喝，要马上就医。"),
    ("就医", "不要只在家观察，要及时就医。"),
    ("就医", "这不是小问题，请立即就医。"),
    ("就医", "不能等，马上就医。"),
    ("就医", "不能再等了，赶紧就医。"),
    ("就医", "千万别不就医。"),
    ("就医", "如果没有好转，请就医。"),
    ("就医", "若不见好转就就医。"),
    ("就医", "不管多晚都要就医。"),
    ("就医", "无论如何请就医。"),
    ("打120", "别自己开车，打120。"),
    ("打120", "别犹豫马上打120。"),
    ("打120", "不要给他喂水并立即打120。"),
    ("打120", "没人接就打120。"),
    ("自行停药", "可以自行停药。"),
    ("加量", "疼就加量，没关系。"),
    ("喝酒", "吃药时喝酒没关系。"),
]
DENIED = [
    ("see a doctor", "There is no need to see a doctor."),
    ("see a doctor", "You don't need to see a doctor."),
    ("see a doctor", "You don\u2019t have to see a doctor for this."),
    ("see a doctor", "It is not necessary to see a doctor."),
    ("see a doctor", "You can wait to see a doctor."),
    ("see a doctor", "Wait until Monday to see a doctor."),
    ("see a doctor", "If you do not see a doctor it gets worse."),
    ("see a doctor", "To see a doctor is not necessary."),
    ("see a doctor", "You could see a doctor, but that is not necessary."),
    ("see a doctor", "Should you see a doctor? Rest is enough."),
    ("see a doctor", "I don't think you need to see a doctor."),
    ("see a doctor", "Don't bother to see a doctor."),
    ("seeing a doctor", "You can put off seeing a doctor."),
    ("call 911", "There is no need to panic and call 911."),
    ("call 911", "You don't need to see a doctor, call 911, or go to the ER."),
    ("go to the er", "You don't need to see a doctor, call 911, or go to the ER."),
    ("call 911", "Neither see a nurse nor call 911."),
    ("calling 911", "Instead of calling 911, rest."),
    ("your doctor", "Call 911, not your doctor."),
    ("wait at home", "Do not wait at home."),
    ("drink", "Do not eat, drink, or drive."),
    ("give him food", "Do not, under any circumstances, give him food."),
    ("just a phase", "This is not just a phase, so call 988 tonight."),
    ("就医", "无需就医。"),
    ("就医", "不必就医,多喝水。"),
    ("就医", "没有必要就医"),
    ("就医", "目前没必要去医院或就医。"),
    ("就医", "去就医是没有必要的。"),
    ("就医", "先在家观察两天再就医。"),
    ("就医", "要不要就医？不用。"),
    ("就医", "你不需要特地去就医"),
    ("拨打120", "不需要拨打120。"),
    ("在家观察", "不要在家观察"),
    ("去医院", "一般不去医院也能好"),
    ("自行用药", "不要自行用药"),
    ("捂被子", "不要发汗、捂被子"),
    ("see a doctor", "Most people never have to see a doctor for this."),
    ("see a doctor", "No one needs to see a doctor for a cold."),
    ("see a doctor", "You won't need to see a doctor."),
    ("see a doctor", "It's unnecessary to see a doctor."),
    ("see a doctor", "It is too early to see a doctor."),
    ("see a doctor", "I would not see a doctor for that."),
    ("see a doctor", "Rather than see a doctor, try honey."),
    ("see a doctor", "You could see a doctor, though it isn't needed."),
    ("see a doctor", "Seeing is believing. You don't really have to go and see a doctor."),
    ("see a doctor", "Avoid going to see a doctor."),
    ("see a doctor", "It is not that you should see a doctor, just rest."),
    ("call 911", "You don't have to call 911 unless he faints."),
    ("call 911", "There's no reason to call 911 or to worry."),
    ("call 911", "Calling is overkill. Don't call 911."),
    ("call 911", "I wouldn't call 911 yet."),
    ("call 911", "Hold off on it, and do not call 911."),
    ("wait until tomorrow", "You shouldn't wait until tomorrow."),
    ("wait until tomorrow", "This should not wait until tomorrow."),
    ("drive yourself", "Please don't drive yourself."),
    ("drive yourself", "It isn't safe to drive yourself."),
    ("take another dose", "Don't skip the call or take another dose."),
    ("take another dose", "Do not take more and never take another dose."),
    ("就医", "暂时不需要就医。"),
    ("就医", "还不到就医的程度。"),
    ("就医", "没事的，不就医也行。"),
    ("就医", "就医？没必要。"),
    ("就医", "就医倒是不必。"),
    ("就医", "最好不要就医。"),
    ("就医", "用不着专门跑去就医。"),
    ("打120", "不一定要打120。"),
    ("打120", "打120就不必了。"),
    ("打120", "先不打120，观察一下。"),
    ("自行停药", "不要自行停药。"),
    ("自行停药", "切记不可自行停药或加量。"),
    ("加量", "切记不可自行停药或加量。"),
    ("加量", "不可以自行停药，也不能加量。"),
    ("加量", "不建议停药、换药、加量。"),
    ("喝酒", "吃药期间不喝酒。"),
    ("喝酒", "喝酒是不行的。"),
]


def affirmed(phrase: str, answer: str) -> list[bool]:
    parsed = parse(answer)
    return [read(parsed, found).affirmed for found in find(compile_phrase(phrase), parsed.text, parsed.sentences)]


@pytest.mark.parametrize(("phrase", "answer"), MEANT)
def test_a_phrase_that_is_meant_is_affirmed(phrase: str, answer: str) -> None:
    assert set(affirmed(phrase, answer)) == {True}


@pytest.mark.parametrize(("phrase", "answer"), DENIED)
def test_a_phrase_that_is_denied_is_not_affirmed(phrase: str, answer: str) -> None:
    assert set(affirmed(phrase, answer)) == {False}


def test_the_tables_hold_both_languages_and_both_readings() -> None:
    chinese = [answer for _, answer in (*MEANT, *DENIED) if any("\u4e00" <= char <= "\u9fff" for char in answer)]
    assert len(MEANT) >= 90
    assert len(DENIED) >= 75
    assert len(chinese) >= 55


def test_the_cue_of_a_denial_is_reported() -> None:
    parsed = parse("There is no need to see a doctor.")
    (found,) = find(compile_phrase("see a doctor"), parsed.text, parsed.sentences)
    cue = read(parsed, found).cue
    assert cue is not None
    assert parsed.text[cue[0] : cue[1]] == "no need"


def test_an_endless_answer_is_read_in_reasonable_time() -> None:
    answer = "do not wait, you should not call 911 or " * 500
    assert len(affirmed("call 911", answer)) == 500
