"""What is masked, what is left alone, and what a finding says. Every value here is invented."""

import json
import pickle
from dataclasses import asdict

import pytest
from pydantic import ValidationError

from training.data.privacy import KINDS, Finding, Masker, PrivacySection


def mask(*texts: str, **section: object) -> tuple[str, ...]:
    return Masker(PrivacySection.model_validate(section)).mask(texts).texts


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我叫王小明，电话13800001234", "我叫[NAME_1]，电话[PHONE_1]"),
        ("患者张建国，男，58岁，住院号2023045871。", "患者[NAME_1]，男，58岁，住院号[RECORD_NUMBER_1]。"),
        ("王女士您好，请问欧阳靖医生在吗？", "[NAME_1]女士您好，请问[NAME_2]医生在吗？"),
        ("我妈妈刘桂芳去年做了手术", "我妈妈[NAME_1]去年做了手术"),
        ("昨天王建国来复诊，胸口还是闷", "昨天[NAME_1]来复诊，胸口还是闷"),
        ("身份证号：110101198703120021", "身份证号：[CN_ID_1]"),
        ("手机：１３８００００１２３４，座机（010）88886666", "手机：[PHONE_1]，座机[PHONE_2]"),
        ("出生日期：1987年3月12日", "出生日期：[BIRTH_DATE_1]"),
        ("1950年12月30日生，退休", "[BIRTH_DATE_1]生，退休"),
        ("接诊医生：赵国强；患者：孙丽华；签名：高兴", "接诊医生：[NAME_1]；患者：[NAME_2]；签名：[NAME_3]"),
        ("家住北京市朝阳区建国路88号院3号楼1502室，行动不便", "家住[ADDRESS_1]，行动不便"),
        ("加我微信：wxid_lyf2019，QQ号1357924680", "加我微信：[ACCOUNT_1]，QQ号[ACCOUNT_2]"),
        ("护照号E12345678", "护照号[PASSPORT_1]"),
        ("车牌京A·88K61的车", "车牌[PLATE_1]的车"),
        ("Dr. Patel saw Mrs. O'Connor", "Dr. [NAME_1] saw Mrs. [NAME_2]"),
        ("my name is john smith and i cough", "my name is [NAME_1] and i cough"),
        ("Patient name: DOE, JANET   Sex: F", "Patient name: [NAME_1]   Sex: F"),
        ("Regards,\nDaniel Mercer", "Regards,\n[NAME_1]"),
        ("My son Liam was born on 12 May 2019.", "My son [NAME_1] was born on [BIRTH_DATE_1]."),
        ("Call (212) 555-0187 or +44 7700 900456.", "Call [PHONE_1] or [PHONE_2]."),
        ("MRN 00482913, NHS number 943 476 5919", "MRN [RECORD_NUMBER_1], NHS number [UK_NHS_1]"),
        ("SSN 219-09-9999, card 4111 1111 1111 1111", "SSN [US_SSN_1], card [BANK_CARD_1]"),
        ("IBAN GB82 WEST 1234 5698 7654 32 PLEASE", "IBAN [IBAN_1] PLEASE"),
        ("mail k.brandt@example.com from 198.51.100.23", "mail [EMAIL_1] from [IP_1]"),
        ("client 2001:db8:4f::9a reconnected", "client [IP_1] reconnected"),
        ("I live at 1420 Maplewood Avenue, Springfield, IL 62704.", "I live at [ADDRESS_1]."),
        ("Send it to 27 Baker's Lane, Flat 4, Bristol BS1 4QT", "Send it to [ADDRESS_1]"),
        ("my profile is https://www.linkedin.com/in/omar-haddad-81", "my profile is [URL_1]"),
    ],
)
def test_personal_data_is_replaced_and_the_rest_stays(text: str, masked: str) -> None:
    assert mask(text) == (masked,)


@pytest.mark.parametrize(
    "text",
    [
        "高血压患者何时复查？黄疸、白细胞、关节、单位、方法、温水、马上、安全、常规",
        "请向医生说明过敏史，找一位钢琴老师，任何医生都会建议您常规复查",
        "患者：高血压，糖尿病十年。医生：方便的话，请常复查。患者：谢谢。",
        "这种病叫做黄疸，那种叫做高血压。我是高血压患者，我叫了救护车，一味名叫柴胡的药",
        "患者张某，男，李某某为其家属；小李今年30岁",
        "该患者应进行CT、MRI检查；患者年长女性，75岁",
        "维生素D3每次10000-20000单位，白细胞13800，血压138/92",
        "订单编号20230318123456789，ISBN 978-7-117-26374-1，国药准字H20013800",
        "热线12356、400-810-1234和1-800-784-8669不属于任何人",
        "Parkinson's disease; Dr. James Parkinson described it; Dr. Scholl's insoles",
        "Will May and Rose be ready? Mark the area on 12 May.",
        "NCT04280705, PMID 31978945, DOI 10.1056/NEJMoa2001017, ICD-10 E11.9, NDC 0002-8215-01",
        "Version 10.0.0.1, section 1.2.3.4 and http://192.168.1.1 lead to nobody",
        "The operation was on 12 May 2019.",
        "Hi Doctor, I am Type 2 diabetic. I am American.",
        "Read https://www.cdc.gov/flu/index.htm",
        "世界卫生组织于1948年4月7日成立，这一天被定为世界卫生日",
    ],
)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert mask(text) == (text,)


def test_the_same_value_gets_the_same_number_in_every_turn_however_it_is_written() -> None:
    first, second = mask("我叫王小明，电话138 0000 1234", "王小明您好，会打13800001234联系您；李强医生出诊")

    assert first == "我叫[NAME_1]，电话[PHONE_1]"
    assert second == "[NAME_1]您好，会打[PHONE_1]联系您；[NAME_2]医生出诊"


def test_a_name_given_away_once_is_masked_where_nothing_announces_it() -> None:
    assert mask("My name is Priya Raman.", "Noted. Raman, Priya: glucose 152.") == ("My name is [NAME_1].", "Noted. [NAME_2]: glucose 152.")


def test_a_surname_alone_shares_the_number_of_the_one_full_name_that_has_it() -> None:
    assert mask("I saw Dr. Helen Brookes. Dr. Brookes agreed.", "钟灵女士；钟女士；欧阳靖医生；欧阳医生") == (
        "I saw Dr. [NAME_1]. Dr. [NAME_1] agreed.",
        "[NAME_2]女士；[NAME_2]女士；[NAME_3]医生；[NAME_3]医生",
    )


def test_a_surname_of_two_people_gets_a_number_of_its_own() -> None:
    assert mask("Mr. John Smith and Mrs. Mary Smith; Dr. Smith left") == ("Mr. [NAME_1] and Mrs. [NAME_2]; Dr. [NAME_3] left",)


def test_numbering_goes_on_after_placeholders_that_are_there() -> None:
    assert mask("Dr. [NAME_4] called Mr. Tanaka") == ("Dr. [NAME_4] called Mr. [NAME_5]",)


def test_bare_placeholders_have_no_number() -> None:
    assert mask("Dr. Patel, Dr. Osei", placeholders="bare") == ("Dr. [NAME], Dr. [NAME]",)


def test_only_the_kinds_of_the_recipe_count() -> None:
    assert mask("Dr. Patel: 212-555-0187", kinds=["phone"]) == ("Dr. Patel: [PHONE_1]",)


def test_a_number_that_is_something_else_is_not_masked_as_a_phone_when_its_own_kind_is_off() -> None:
    text = "MRN 2125550187"

    assert mask(text, kinds=["phone"]) == (text,)


def test_allowed_phrases_stay_however_they_are_written() -> None:
    text = "Call 021-6123-0000 or 021 6123 0000; Dr. Helen Brookes and Dr. Osei"

    assert mask(text, allow=["021-61230000", "helen brookes"]) == (
        "Call 021-6123-0000 or 021 6123 0000; Dr. Helen Brookes and Dr. [NAME_1]",
    )


def test_an_allowed_number_may_be_written_in_wide_digits() -> None:
    texts = ("热线０１０－８８８８６６６６", "热线010-88886666")

    assert mask(*texts, allow=["０１０-８８８８６６６６"]) == texts


def test_what_reaches_beyond_an_allowed_phrase_is_masked_up_to_it() -> None:
    assert mask("北京市朝阳区建国路88号院3号楼1502室", allow=["建国路88号院"]) == ("[ADDRESS_1]建国路88号院[ADDRESS_2]",)


def test_a_region_decides_which_national_numbers_are_known() -> None:
    assert mask("912 345 678 or 415-555-0132", regions=["ES"]) == ("[PHONE_1] or 415-555-0132",)
    assert mask("912 345 678 or 415-555-0132", regions=["US"]) == ("912 345 678 or [PHONE_1]",)


def test_counting_leaves_the_texts_and_dropping_masks_them_for_the_list_of_rejected_rows() -> None:
    counted = Masker(PrivacySection(mode="count")).mask(["Dr. Patel"])
    dropped = Masker(PrivacySection(mode="drop_row")).mask(["Dr. Patel"])

    assert (counted.texts, counted.drop, counted.counts) == (("Dr. Patel",), False, {"name": 1})
    assert (dropped.texts, dropped.drop) == (("Dr. [NAME_1]",), True)


def test_a_row_without_personal_data_is_not_dropped() -> None:
    assert not Masker(PrivacySection(mode="drop_row")).mask(["血压138/92"]).drop


def test_switched_off_nothing_is_looked_for() -> None:
    masked = Masker(PrivacySection(enabled=False)).mask(["Dr. Patel"])

    assert (masked.texts, masked.findings) == (("Dr. Patel",), ())


def test_a_finding_says_what_kind_stood_where_and_never_what_it_was() -> None:
    masked = Masker(PrivacySection()).mask(["ok", "身份证号：110101198703120021"])

    assert masked.findings == (Finding("cn_id", text=1, start=5, end=23),)
    written = json.dumps([asdict(finding) for finding in masked.findings]) + repr(masked.findings)
    assert "1101011987" not in written


def test_a_masker_can_be_sent_to_another_process() -> None:
    masker = pickle.loads(pickle.dumps(Masker(PrivacySection(allow=("Patel",)))))

    assert masker.mask(["Dr. Patel, Dr. Osei"]).texts == ("Dr. Patel, Dr. [NAME_1]",)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"regions": ["XX"]}, "no telephone region is called XX"),
        ({"allow": [" "]}, "consist of spaces only"),
        ({"kinds": ["soul"]}, "Input should be"),
        ({"kinds": []}, "at least 1 item"),
        ({"mod": "mask"}, "Extra inputs"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrivacySection.model_validate(section)


def test_every_kind_is_masked_in_a_test_above() -> None:
    table = test_personal_data_is_replaced_and_the_rest_stays.pytestmark[0].args[1]  # type: ignore[attr-defined]
    shown = " ".join(masked for _, masked in table)

    assert [kind for kind in KINDS if f"[{kind.upper()}_1]" not in shown] == []
