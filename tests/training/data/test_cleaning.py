import itertools
import json
import pickle
import time
from pathlib import Path

import pytest
from ftfy import fix_encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.clean_encoding import mended
from training.data.cleaning import Cleaner, CleaningSection

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
OFF = {"mojibake": False, "control_characters": False, "unicode": "none", "html": False, "boilerplate": False, "whitespace": False}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def cleaner() -> Cleaner:
    return Cleaner(CleaningSection())


def only(step: str, **options: object) -> Cleaner:
    return Cleaner(CleaningSection.model_validate({**OFF, step: "nfc" if step == "unicode" else True, **options}))


@pytest.mark.parametrize(
    "text",
    [
        "p < 0.05, <3 mmol/L and >5; a<b>c; if x <y and z> w",
        "Use List<String> or Map<K, V>; <your name>, <patient_id>, <EOS>, <|im_start|>, <think>Hm.</think>",
        "Put it in <summary></summary>, <article>…</article> and <input>…</input>.",
        "R&D, AT&T, Q&A; fish & chips; ?a=1&b=2",
        "HTML 标签成对出现，比如 <html> 和 </html>，中间是内容。",
        "In HTML, use <b>bold</b> and &nbsp; for a hard space.",
        "<!DOCTYPE html>\n<html>\n<body>\n    <p>Hi</p>\n</body>\n</html>",
        '<form action="/go">\n    <input type="text">\n</form>',
        "Write `<b>x</b>  y` so:\n```html\n<p>one</p>   <p>two</p>\n\n\n\n\n<script>a()</script>\n```\nDone.",
        "def f():\n    if x:\n\treturn 1",
        "- a\n  - b\n    - c",
        "患者说：“头痛、恶心”……已３天（体温３８℃）；——见《指南》！",
        "It’s “quoted” — naïve café, 10⁹/L, H₂O, ½, ﬁ, Ⅱ期, 5 µg, ±2 °C, ×3",
        "Größe, ça va, señor, Łódź, Привет, Ελλάδα, שלום",
        "می‌خواهم",  # a non-joiner between Persian letters
        "क्‍ष",  # a joiner in Devanagari
        "👩‍⚕️ 👨‍👩‍👧 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣",
        "葛󠄀城市",  # a variant of a Chinese character
        "name\tdose\nx\t5",
        "联通的信号如何？",  # in GBK its first characters are valid UTF-8
    ],
)
def test_text_that_is_meant_so_stays(cleaner: Cleaner, text: str) -> None:
    cleaned = cleaner.clean(text)

    assert (cleaned.text, dict(cleaned.changes), cleaned.adverts) == (text, {}, ())


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("mojibake", "Itâ€™s a cafÃ©", "It’s a café"),
        ("mojibake", "fine line “ok”\nschÃ¶n", "fine line “ok”\nschön"),
        ("mojibake", "鍙戠儳鎬庝箞鍔炲憿", "发烧怎么办呢"),
        ("mojibake", "鎮ｈ€呭ご鐥涗袱澶�", "患者头痛两�"),
        ("mojibake", "cafÃ© crÃ¨me brÃ»lÃ©e et entrÃ©e", "café crème brûlée et entrée"),
        ("mojibake", "你好，请问发烧怎么办".encode("gbk").decode("latin-1"), "你好，请问发烧怎么办"),
        ("control_characters", "a\u200bb\ufeffc\u00add\x00e\x1b\x7f\u202ef\u2066g\u2060", "abcdefg"),
        ("control_characters", "a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("control_characters", "x\u200dy 好\u200c吗 \u200d👩", "xy 好吗 👩"),
        ("control_characters", "\ud83d\ude00 \ud83d", "😀 "),
        ("control_characters", "hi\U000e0041\U000e0042\U000e0100", "hi"),
        ("unicode", "cafe\u0301", "café"),
        ("html", "<p>One &amp; two</p><p>Three<br/>four</p>", "\nOne & two\n\nThree\nfour\n"),
        ("html", "5 &lt; 6 &amp;gt; &#20013;&nbsp;x", "5 < 6 > 中\xa0x"),
        ("html", "a<script>var x = '<p>';</script>b<style>p{}</style>c <b>d</b>", "abc d"),
        ("html", '<a href="http://x.org/?a=1">link</a> <img src="x.png">', "link "),
        ("html", "platelets 10<sup>9</sup>/L, CO<sub>2</sub>, Na<sup>+</sup>, 4<sup>th</sup>", "platelets 10⁹/L, CO₂, Na⁺, 4th"),
        ("html", "<ul><li>a<li>b</ul>", "\n\n- a\n- b\n"),
        ("html", "<table><tr><td>a</td><td>b</td></tr></table>", "\n\na\tb\t\n\n"),
        ("html", "&lt;p&gt;escaped &lt;b&gt;page&lt;/b&gt;&lt;/p&gt;", "\nescaped page\n"),
        ("html", "line<br>line <!-- note --> end </p>", "line\nline  end \n"),
        ("html", "<p>Use `<b>` here</p>", "\nUse `<b>` here\n"),
        ("whitespace", "　　患者　男\xa0性  45岁 \n\n\n\n\n  已治愈。\t\n", "患者 男 性 45岁\n\n\n  已治愈。"),
        ("whitespace", "\n\n  a\t\tb   c\nd", "  a\tb c\nd"),
        ("whitespace", "   a `x   y`   b", "a `x   y` b"),
    ],
)
def test_each_step_repairs_its_own_dirt(step: str, before: str, after: str) -> None:
    cleaned = only(step).clean(before)

    assert (cleaned.text, dict(cleaned.changes)) == (after, {step: 1})


@pytest.mark.parametrize("step", sorted(OFF))
def test_a_step_that_is_off_changes_nothing(step: str) -> None:
    dirty = "cafe\u0301 Ã©\u200b <p>a</p>  b &amp; c\nClick here to win.\n"
    section = CleaningSection.model_validate({step: OFF[step]})

    assert step not in Cleaner(section).clean(dirty).changes
    assert Cleaner(CleaningSection.model_validate(OFF)).clean(dirty).text == dirty
    assert step in Cleaner(CleaningSection()).clean(dirty).changes


def test_nfkc_is_there_for_those_who_want_it() -> None:
    assert only("unicode", unicode="nfkc").clean("ＡＢＣ １２３ ﬁ").text == "ABC 123 fi"


def test_whole_pages_are_stripped_where_the_recipe_says_they_were_scraped() -> None:
    page = "<!DOCTYPE html><html><head><title>Flu</title></head><body><p>Rest and drink.</p></body></html>"

    assert only("html", html_pages="strip").clean(page).text.split() == ["Flu", "Rest", "and", "drink."]


ADVERTS = """
Click here to learn more about mosaicism.
For more information on the treatment of CAH, please click here.
Sign up for our free weekly newsletter today!
Follow us on Facebook and Twitter.
Copyright © 2021 Health Media Ltd.
© 2020 Example Inc. All rights reserved.
This website uses cookies to improve your experience.
We use cookies to personalise content.
By continuing to browse you agree to our use of cookies.
Please enable JavaScript to view the comments.
Call us today at 1-800-555-0199 for a free quote.
Order now and save 20% off!
Download our free app for iOS and Android.
This post is sponsored by Acme Pharma.
更多健康知识，请关注我们的微信公众号“健康之家”。
欢迎关注公众号：健康之家
微信公众号：jiankangzhijia
详情请加我微信：abc_1234567，免费咨询。
客服微信：doctor8888
长按识别下方二维码关注我们
版权所有 © 2020 某某医院
本文未经授权，禁止转载，侵权必究。
转载请注明出处。
请点击这里查看详情。
点击阅读原文，了解更多。
点击链接购买同款血压计。
觉得有用的话请点赞转发！
咨询热线：400-123-4567
本网站使用cookies以改善您的体验。
继续浏览本站即表示您同意我们使用Cookie。
立即下载健康APP，领取红包！
""".strip().splitlines()


@pytest.mark.parametrize("advert", ADVERTS)
def test_an_advert_goes_and_the_sentences_around_it_stay(advert: str) -> None:
    cleaner = only("boilerplate")

    line = cleaner.clean(f"Drink water.\n{advert}\nRest.")
    inside = cleaner.clean(f"Drink water. {advert}")
    alone = cleaner.clean(advert)

    assert (line.text, dict(line.changes)) == ("Drink water.\nRest.", {"boilerplate": 1})
    assert "".join(line.adverts).replace(" ", "") == advert.replace(" ", "")
    assert inside.text.strip() == "Drink water."
    assert alone.is_empty


@pytest.mark.parametrize(
    "line",
    [
        "Advertisement",
        "Read more »",
        "Share | Tweet | Pin it",
        "Share this article",
        "Skip to main content",
        "Home | About us | Privacy policy",
        "Accept all cookies",
        "阅读原文",
        "分享到：微信、微博、QQ空间",
        "责任编辑：张三",
        "点赞、收藏、转发",
        "广告",
    ],
)
def test_a_label_goes_among_other_lines_but_may_be_the_whole_answer(line: str) -> None:
    cleaner = only("boilerplate")

    assert cleaner.clean(f"Rest.\n{line}\n").text == "Rest.\n"
    assert cleaner.clean(line).text == line


@pytest.mark.parametrize(
    "text",
    [
        "如有胸痛请立即拨打120急救电话。",
        "Call 911 now, or call us at the crisis line: 1-800-273-8255.",
        "Call the National Suicide Prevention Lifeline at 1-800-273-8255.",
        "全国心理援助热线：12356。",
        "预约挂号电话：010-12345678",
        "我该怎么关注你们的公众号？",
        "医生让我加微信买药，这是不是骗局？",
        "凡是要求加微信转账的都是诈骗。",
        "在小程序里增加微信支付功能。",
        "这本书的版权所有者是出版社。",
        "点击“设置”按钮，然后选择“保存”。",
        "不要随意点击不明链接。",
        "更多信息请咨询医生。",
        "患者应关注血压变化，必要时咨询医生。",
        "Copyright laws protect the rights of creators.",
        "Websites use cookies to remember you, and our app stores them.",
        "Never trust mails that say click here.",
        "Share this information only with people you trust.",
        "Read more about how conditions are inherited at the NLM's site.",
        "`Click here to win.` is the text of the button.",
        "```\nClick here to win.\n```",
    ],
)
def test_advice_that_looks_like_an_advert_stays(text: str) -> None:
    assert only("boilerplate").clean(text).text == text


def test_phrases_of_the_recipe_are_plain_words_and_take_their_sentence() -> None:
    cleaner = only("boilerplate", boilerplate_phrases=["Acme (R)", "健康之家"])

    assert cleaner.clean("Rest. Brought to you by ACME (R)! Drink.").text == "Rest. Drink."
    assert cleaner.clean("多休息。健康之家祝您健康。").text == "多休息。"


def test_a_text_of_which_nothing_is_left_says_so(cleaner: Cleaner) -> None:
    assert cleaner.clean("<p>&nbsp;</p>\u200b").is_empty
    assert cleaner.clean("").is_empty
    assert not cleaner.clean("0").is_empty


def test_dirt_under_dirt_is_found() -> None:
    """A zero-width space splits the tag, the tag hides an advert: each is seen only when the one before is gone."""
    assert Cleaner(CleaningSection()).clean("Rest.<\u200bbr>Click &#104;ere to win.").text == "Rest."


CHARACTERS = """
a b Z 0 . , ; ! ? < > / & # = " ' ` ~ \t @ - é Ã © â € ™ ° ² Œ 中 文 。 ， ！ 点 击 这 里 微 信 👩 😀 ا ب क ् 浣 犲 ソ
<p> </p> <br> <b> </b> <sup> </sup> <script> </script> <!-- --> &amp; &lt; &gt; &#38; &nbsp; amp; lt; ``` ~~~ Copyright © tag html www. ://
"""
INVISIBLE = "\u3000 \xa0 \u200b \u200c \u200d \ufeff \ud83d \ude00 \ufe0f \u0301 \u0316 \x85 \x00 \u2028 \U000e0041 \r"
SPACED = [" ", "  ", "\n", "\n\n\n\n", "\n```\n", "版权所有 ", "click here ", "点击这里"]
DIRT = st.sampled_from([*CHARACTERS.split(), *INVISIBLE.split(" "), *SPACED])


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(DIRT, st.text(max_size=4)), max_size=40).map("".join), st.sampled_from(["nfc", "nfkc"]), st.booleans())
def test_cleaning_twice_is_cleaning_once(text: str, form: str, pages: bool) -> None:
    cleaner = Cleaner(CleaningSection.model_validate({"unicode": form, "html_pages": "strip" if pages else "keep"}))

    once = cleaner.clean(text)
    twice = cleaner.clean(once.text)

    assert twice.text == once.text
    assert set(twice.changes) <= {"unsettled"}


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=30), st.sampled_from(["cp1252", "latin-1", "cp1251"])
)
def test_the_quick_look_for_mojibake_misses_nothing_that_ftfy_would_mend(text: str, encoding: str) -> None:
    line = text.encode().decode(encoding, "replace").replace("\n", "")

    assert mended(line) == fix_encoding(line)


HOSTILE = """
< & &amp; &lt; &#38;#38; <p> <p <script> <!-- <a` ` ``x Ã Ã© â€™ Âx 浣犲ソ 点击这里 版权所有 加微信 请关注 。 ! ( 微信：a copyright 分享到
<b>x</b> x@ <li> § “ .. -- www. 1- 12345678
"""
SPACED_HOSTILE = ["\t \n", "&lt;b ", "<p a", '<script x="1">', "~~~\n", "```\n", "a ", "click here ", "call us ", "to click here ", " "]
INVISIBLE_HOSTILE = ["\n", "\u3000", "a\u0300\u0316", "\x85", "\ud800", "\u200d", "👩\u200d", "\U000e0041", "\U0001f3f4", "\xa0"]


@pytest.mark.parametrize("unit", [*HOSTILE.split(), *SPACED_HOSTILE, *INVISIBLE_HOSTILE])
def test_a_hostile_megabyte_takes_seconds(cleaner: Cleaner, unit: str) -> None:
    """Quadratic work on 10⁶ characters would take hours, so the bound needs no precision. CPU time: the machine may be busy."""
    started = time.process_time()
    cleaner.clean(f"x{unit * (MEGABYTE // len(unit))} x")

    assert time.process_time() - started < 20


def test_a_cleaner_can_be_sent_to_another_process(cleaner: Cleaner) -> None:
    assert pickle.loads(pickle.dumps(cleaner)).clean("a  b").text == "a b"


def test_real_rows_are_hardly_touched(cleaner: Cleaner) -> None:
    """In 11,000 rows of carefully made data only spaces and the 'click here' sentences of MedQuAD are dirt."""
    files = [SHARED / "med_zh" / "alpaca.jsonl", SHARED / "med_en" / "medquad.jsonl"]
    if missing := [path.name for path in files if not path.exists()]:
        pytest.skip(f"{len(missing)} of {len(files)} shared files are not here: {', '.join(missing)}")
    rows = itertools.chain.from_iterable(path.open(encoding="utf-8") for path in files)
    texts = [
        text for row in rows for key, text in json.loads(row).items() if key in ("instruction", "output", "question", "answer") and text
    ]

    changes = [cleaner.clean(text) for text in texts]

    assert len(texts) > 20_000
    assert {step for change in changes for step in change.changes} == {"whitespace", "boilerplate"}
    adverts = [advert for change in changes for advert in change.adverts]
    assert 20 <= len(adverts) <= 60
    assert all("click here" in advert.lower() for advert in adverts)
