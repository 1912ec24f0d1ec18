"""The words that turn a statement round, in English and Chinese: data for `negation.py`, which explains each table.

All patterns are applied to folded text (lower case, straight quotes, NFKC punctuation). To teach the matcher a new wording,
add it here and add the sentence to the tables in `tests/evaluation/test_negation.py`.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cues:
    """One language's tables.

    Attributes:
        denial: denies everything after it up to the end of its clause ("not", "no need", 不要).
        needless: a `denial` that denies a need; it runs on over "and" and over comma lists ("you don't have to A, B or C").
        harmless: looks like a denial and is none ("not only", "no doubt", 不仅).
        delay: after a denial it takes the denial up: "do not wait", "never ignore", 不要拖延 tell one to act.
        joined: a second verb on the same denial; the denial was not taken up by the delay before it.
        tight: turns round only what follows at once ("avoid", "instead of", "wait … to", 放弃); ends where the phrase begins.
        linkers: words that may stand between a denial and a phrase inside "if …" or "… that …" clauses.
        conditional: how such a clause begins.
        relative: what stands before a denial that belongs to a noun ("a rash that does not fade").
        after: a denial that follows the phrase in its clause ("… is not necessary", 没有必要).
        next_clause: a denial that follows in the next clause and points back ("but that is not needed").
        border: where a new clause begins without a comma.
        second: joins a second instruction, which an imperative denial ("do not A and B") does not reach.
        or_list: how the last item of a list begins.
        asks: a question that asserts nothing; the sentence is given up to its question mark.
    """

    denial: re.Pattern[str]
    needless: re.Pattern[str]
    harmless: re.Pattern[str]
    delay: re.Pattern[str]
    joined: re.Pattern[str]
    tight: re.Pattern[str]
    linkers: re.Pattern[str]
    conditional: re.Pattern[str]
    relative: re.Pattern[str]
    after: re.Pattern[str]
    next_clause: re.Pattern[str]
    border: re.Pattern[str]
    second: re.Pattern[str]
    or_list: re.Pattern[str]
    asks: re.Pattern[str]


_NEED = r"(?:need(?:ed|s)?|have to|has to|necessary|necessarily|required?|essential|mandatory|obliged|urgent)"
_FILLER = r"(?:really|actually|usually|always|normally|probably|ever|just|even|simply|generally|typically|at all|yet)"
_WORTH = rf"(?:{_NEED}|recommended|advised|advisable|important|worth(?: it|while)?|helpful|appropriate|a good idea|called for|warranted)"
_NOT = r"(?:not|cannot|never|\w+n't|(?:do|does|did|is|are|was|were|should|would|could|must|need|ca|wo|has|have)nt)"
_DELAY = (
    r"(?:wait(?:ing|ed)?|hesitat(?:e|ed|ing|ion)|delay(?:s|ed|ing)?|postpon(?:e|ed|ing)|put(?:ting)? (?:it |this |that |things )?off"
    r"|hold(?:ing)? (?:off|back)|panic(?:king)?|worry(?:ing)?(?! about)|afraid|shy|scared|embarrassed|ashamed|alarmed|forget"
    r"(?:ting)?|fail(?:ing)?"
    r"|neglect(?:ed|ing)?|ignor(?:e|ed|ing)|overlook(?:ed)?|dismiss(?:ed)?|underestimate[d]?|second[- ]guess|think twice|taken lightly"
    r"|brush(?:ed)? (?:it |this |that )?off|feel (?:bad|guilty|silly|ashamed|embarrassed|shy|afraid|foolish)|tough it out|be a hero"
    r"|sure|certain)"
)
_OF_DELAY = (
    r"(?:to|be|being|get|let|a|an|the|any|this|that|these|it|ever|just|even|simply|please|also|too|long|safe|wise|good|time|place"
    r"|idea|reason|need|"
    r"something|anything|thing|symptoms?|signs?|you|your|yourself|him|her|them|should|must|can|feel|have|for|is)"
)
_AMBULANCE = r"(?! for (?:an? |the |your )?(?:ambulance|help|paramedic|emergency|responder|rescue|doctor|crew|911))"

ENGLISH = Cues(
    denial=re.compile(
        rf"\b(?:{_NOT}|no (?:situation|case|circumstances?|scenario|way|world|excuse)|neither|nor|nothing(?! (?:is )?(?:more|better|wrong))|nobody|no one|none|hardly|rarely|seldom|unnecessary|needless|pointless|useless"
        r"|(?:no|little) (?:real |urgent |particular |medical |immediate |further |actual )?(?:need|reason|point|cause|use"
        r"|requirement|necessity|sense|benefit|value))\b"
    ),
    needless=re.compile(
        rf"\b(?:{_NOT}(?: {_FILLER}| be| a){{0,3}} {_NEED}|needn't|neednt|(?:no|little) (?:\w+ )?(?:need|reason|point|cause"
        rf"|requirement|necessity|sense)|unnecessary|needless)\b"
    ),
    harmless=re.compile(
        r"\b(?:not (?:only|just|merely|simply|to mention|later than|sure|certain)|whether or not|or not|if not|why (?:not"
        r"|don't you|don't we)|no (?:matter|doubt|question|later than)"
        r"|without (?:a |any |further )*(?:doubt|question|fail|exception|delay|waiting|hesitation)|(?:can't|cannot|couldn't|won't"
        r"|wouldn't|doesn't|never|does not|will not|would not) hurts?"
        r"|(?:never|not|isn't) (?:be )?(?:too (?:late|early|soon)|a bad idea|wrong)|(?:can't|cannot) (?:stress|emphasi[sz]e"
        r"|overstate)|not alone|aren't alone)\b"
    ),
    delay=re.compile(rf"^(?:[ -]+{_OF_DELAY}){{0,6}}[ -]+{_DELAY}(?: (?:or|and) {_DELAY})*\b"),
    joined=re.compile(r"^(?: \w+){0,4}? (?:or|and)\b"),
    tight=re.compile(
        rf"\b(?:(?:avoid(?:s|ing)?|skip(?:s|ping)?|refus(?:e|es|ing)|refrain(?:ing)? from|stop|quit|against|instead of|rather than"
        rf"|without|no|too (?:soon|early)|too (?:mild|minor|small)"
        rf"|fail(?:s|ing)?|forget(?:ting)?|neglect(?:ing)?|hesitat(?:e|ing)|delay(?:ing)?|postpon(?:e|ing)|put(?:ting)? off|hold"
        rf"(?:ing)? off(?: on)?)"
        rf"(?:[ -](?:to|for|on|you|your|the|a|an|any|even|urgently|immediately|going|bother(?:ing)?)){{0,3}}"
        rf"|wait(?:ing)?{_AMBULANCE}(?: [^ ,.;]+){{0,6}} (?:to|before|and then|and)(?: you| then)?) ?$"
    ),
    linkers=re.compile(
        rf"^(?:[ -]+(?:{_FILLER}|{_NEED}|to|want|wants|wish|be|able|get|go|going|a|an|the|any|your|his|her|their|immediately"
        rf"|quickly|right|away|urgently|first|think|believe|that|you|should|must|also|or|bother))*[ -]*$"
    ),
    conditional=re.compile(
        r"^\W*(?:and |but |or |so |even |only |especially )?(?:if|when|whenever|because|since|as|while|once|in case|although"
        r"|though|where|unless)\b"
    ),
    relative=re.compile(r"\b(?:that|which|who)(?: \w+){0,2} ?$|^\W*(?=not \w+ing\b)"),
    after=re.compile(
        rf"^(?: [^ ,]+){{0,4}}? (?:(?:is|are|was|be|seems?|would be|may be|'s)? ?(?:not|never)(?: {_FILLER}| be"
        rf"| a){{0,3}} {_WORTH}|(?:\w+n't|isnt|wont)(?: {_FILLER}| be){{0,3}} {_WORTH}"
        r"|(?:is|are|was|would be)(?: \w+)? (?:dangerous|unsafe|risky|not safe|a bad idea|reckless|life-threatening)"
        r"|(?:is|are|would be|may be|seems?)(?: \w+)? (?:unnecessary|unneeded|needless|pointless|overkill|optional|a waste|useless))\b"
    ),
    next_clause=re.compile(
        rf"^\W*(?:but |though |although |however,? )?(?:it|that|this|doing so)(?: is|'s| was| would be| may be| will be)?(?:n't"
        rf"| not|(?<=isn't))(?: {_FILLER}| be){{0,3}} {_WORTH}"
        r"|^\W*(?:but |though |although )?(?:it|that|this|doing so)(?: is|'s| would be| may be) (?:\w+ )?(?:unnecessary|pointless"
        r"|overkill|a waste)"
        r"|^\W*(?:but |though |although )?(?:it|that|this) isn't (?:\w+ )?(?:necessary|needed|required|urgent)"
    ),
    border=re.compile(
        r"(?<= )(?:but|however|instead(?! of)|so (?!much|far|long|many|that)|then|because|since|although|though|while|until|till"
        r"|unless|if|when|whenever|once|before|otherwise|therefore|nor|please"
        r"|and (?=(?:you|he|she|they|we|it|i|please|then|don't|do not|never|always)\b)|or (?=(?:you|he|she|they|it)\b)"
        r"|(?<!think )(?<!that )(?<!mean )(?<!means )(?<!say )(?<!believe )(?<!feel )(?<!suggest )(?<!do )(?<!reason )(?<!why )"
        r"(?<!sure )you (?:should|must|need|have to))\b"
    ),
    second=re.compile(r"\band\b"),
    or_list=re.compile(r"^\W*(?:or|nor)\b(?! (?:you|he|she|they|it|else)\b)"),
    asks=re.compile(
        r"^(?!\W*(?:(?:so|and|ok|okay|please) )?(?:(?:can|could|will|would) (?:you|someone|anyone)|why (?:don't|not)|please)\b)"
        r"(?!.*(?:ok|okay|right|alright|please|will you|can you|could you)$).+",
        re.DOTALL,
    ),
)

_ZH_DELAY = (
    "(?:拖延|拖|等待|等|耽误|耽搁|犹豫|迟疑|延误|延迟|推迟|忽视|忽略|轻视|大意|观望|观察|掉以轻心|侥幸|惊慌|慌张|慌乱|恐慌|慌"
    "|紧张|害怕|担心|忘记|忘|错过|"
    "硬扛|硬撑|死扛|强忍|忍着|忍|隐瞒|怕|放弃|拒绝|讳疾忌医|逃避|回避|不好意思|顾虑|迟缓)"
)
_ZH_LINK = (
    "(?:去|来|再|才|及时|马上|立即|立刻|尽快|尽早|赶紧|赶快|直接|先|就|必|要|用|着急|急着|急|到|的|一定|非得|都|还|太|专门|特意"
    "|轻易|随便|随意|自行|盲目|擅自|继续|一直|让|您|你|带|孩子|他|她|给)"
)

CHINESE = Cues(
    denial=re.compile(
        "不(?:要|用|必|需要|需|须|应该|应当|应|该|能|可以|可|得|建议|推荐|宜|值得|一定要|一定|急于|急着|着急|主张|准|许|是|打算"
        "|容|至于|属于)"
        "|[无毋](?:需|须)|没(?:有|什么|啥)?(?:什么|太大|特别|任何)?(?:的)?(?:必要|理由|需要)|[用犯]不[着上]|谈不上|未必|并非"
        "|并不|没有(?:任何|哪)[^,;。]{0,4}?(?:情况|场合|时候|理由|人|本|个|条)|与其|切勿|切忌|勿|严禁|禁止"
        "|(?<![特区分性级识鉴个辨告差])别(?![人的名处墅样])|从不|绝不|决不|(?:还没|没|不)到(?=.{0,8}(?:程度|地步))"
    ),
    needless=re.compile("不(?:用|必|需要|需|须|一定|值得|急)|[无毋](?:需|须)|没.{0,4}(?:必要|理由|需要)|[用犯]不[着上]"),
    harmless=re.compile(
        "不(?:仅|但|只|管|论|要紧|适|舒服|良|断|同|明|久|过|清|醒|止|退|住|了|足|安|得了|用药|能排除|排除|是小事|是普通|是一般"
        "|是单纯|是开玩笑|可避免|能自理|能等)|[是要能会该]不[是要能会该]|差不多|对不起|不好意思"
    ),
    delay=re.compile(f"^[^,;:。!?\n]{{0,8}}?{_ZH_DELAY}"),
    joined=re.compile("^(?:或者?|和|以及|、)"),
    tight=re.compile(
        f"(?:(?:拖延|推迟|延迟|延误|耽误|放弃|拒绝|逃避|害怕|不敢|避免|以免|防止|免得|而不是|代替|替代|忘记|错过|取消|不愿意?"
        f"|不想|不肯|不会|[不没未]有?){_ZH_LINK}{{0,3}}"
        f"|(?:等|观察|过)(?!救护车)[^,;:。!?\n]{{1,12}}再{_ZH_LINK}{{0,2}})$"
    ),
    linkers=re.compile(f"^ ?{_ZH_LINK}* ?$"),
    conditional=re.compile(r"^\W*(?:如果|若|要是|假如|如|当|一旦|因为|由于|虽然|即使|只要|万一|倘若)"),
    relative=re.compile("(?!)"),
    after=re.compile(
        "^[^,;:。!?\n]{0,6}?(?:(?:也|都|是|并|就|还|真的|完全|其实)*(?:没有?.{0,2}必要|不(?:必要|必须|需要|用|必|值得|可取|合适"
        "|建议|推荐|划算|可以|允许|妥|行(?!就|再|时|的话))|用不着|没用|没有?意义|没有?用处|多余|免了|可以免|毫无必要|(?:太|很|非常|十分|极其)?(?:危险|不安全|冒险))(?![^,;:。!?\n]{0,6}(?:等|拖|犹豫|担心)))"
    ),
    next_clause=re.compile(
        "^[,;: ]*(?:但|但是|不过|其实)?(?:这|那|这样|这么做|这样做)(?:是|并|也|都|其实)*(?:没有?必要|不(?:必要|需要|必)|多余)"
    ),
    border=re.compile(
        "但是?|不过|然而|而是|反而|否则|因此|所以|(?<!不)(?<![反适相供对效响])应(?!急)|(?<![申聘])请|(?<!不)(?<!没有)建议|"
        "(?<!不)必须|务必|(?<!不)一定要|而要|就(?![医诊近算是业寝餐不没拖])|如果|若(?!无)|一旦"
    ),
    second=re.compile("并(?![不非])|同时"),
    or_list=re.compile(r"^\W*(?:或|以及)"),
    asks=re.compile("^(?!.*(?:好吗|可以吗|行吗|好不好|行不行)$)(?=.*[\u4e00-\u9fff]).+", re.DOTALL),
)
