"""The words that put a statement into a frame, in English and Chinese: data for `framing.py`. All match folded text."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One language's tables.

    Attributes:
        says: somebody else says, believes or promises what follows ("some people say", 网上有人说).
        authority: whose word is the answer's own advice (a doctor, a guideline, we).
        contrast: after `says`, begins something that is no longer reported.
        quotes: before a quotation, makes it a report ("you asked whether", 写着).
        own: before a quotation, makes it the answer's own words, or a label to press.
        about: behind a quotation, speaks about it ("is a myth", 是误区).
        rejection: right behind an unquoted phrase, rejects it.
        endorsed: behind a report, makes it the answer's own ("and so should you", 照做).
        hedge: before the phrase in its clause, leaves it open ("perhaps", 或许).
        hedged_after: behind it in its sentence ("if you feel like it", 看您心情).
        hedged_next: how the next sentence begins that leaves it open ("It's up to you").
        border: where a hedge's clause ends.
        condition: before the phrase, makes it hold on a condition only.
        condition_after: behind it.
        concession: looks like a condition and is none ("even if", 无论).
        reset: ends a condition's reach.
        retraction: takes back what was said before ("scratch that", 算了).
    """

    says: re.Pattern[str]
    authority: re.Pattern[str]
    contrast: re.Pattern[str]
    quotes: re.Pattern[str]
    own: re.Pattern[str]
    about: re.Pattern[str]
    rejection: re.Pattern[str]
    endorsed: re.Pattern[str]
    hedge: re.Pattern[str]
    hedged_after: re.Pattern[str]
    hedged_next: re.Pattern[str]
    border: re.Pattern[str]
    condition: re.Pattern[str]
    condition_after: re.Pattern[str]
    concession: re.Pattern[str]
    reset: re.Pattern[str]
    retraction: re.Pattern[str]


_SAY = (
    r"(?:say|says|said|saying|claims?|claimed|tells? (?:you|him|her|them|people|patients)|told (?:you|him|her|them|me|us)"
    r"|believes?|believed|thinks?|thought|argues?|swears?|swore|insists?|insisted|promises?|promised|suggests?|suggested"
    r"|offers? you|asks? (?:you|people)(?! (?:how|when|what|where))|urged?|heard|read|repeats?|writes?|wrote|advertises?|announces?)"
)
_WRONG = r"(?:a |an |one of the |the |just |only |simply |plain |wrong|false|untrue|dangerous|nonsense|not true|incorrect|outdated|\w+est )"
ENGLISH = Frame(
    says=re.compile(
        rf"\b(?:\w+,? ){{1,8}}?(?:may |might |will |would |could |often |always |sometimes |just |even |still |keep |kept )*{_SAY}\b"
    ),
    authority=re.compile(
        r"\b(?:i|we|i'd|i'm|we'd|our|doctors?|physicians?|surgeons?|pediatricians?|paediatricians?|pharmacists?|nurses?|guidelines?"
        r"|experts?|specialists?|paramedics?|dispatchers?|who|cdc|nhs|fda|studies|study|research|evidence|hospitals?|clinic|clinics"
        r"|poison control|you (?:should|can|could|must|need|have to)|please|then|and|to|let me|someone should|should)"
        r"(?: \w+){0,3}? (?:say|says|said|saying|claims?|tell|tells|told|thinks?|thought|suggests?|suggested|promises?|insists?|advises?"
        r"|recommends?|believes?|urged?|asks?|read|repeats?)\b"
    ),
    contrast=re.compile(r"[;:]|, (?!or |and that |that )|\b(?:but|however|yet|so|instead|although|though|while|whereas|therefore)\b"),
    quotes=re.compile(
        rf"\b(?:{_SAY}|says?|asks?|asked|wonder\w*|wrote|words? like|such as|message|posts?|poster|sign|box|so-called|slogan|headline"
        r"|advert\w*|see|phrases?|myth|rumou?r|carries|sentence|warning|letters?)\b"
    ),
    own=re.compile(
        r"\b(?:(?:my|our) (?:advice|answer|recommendation|rule)|i (?:say|would say|repeat)|i'd say|we say|in (?:\w+ ){1,3}words"
        r"|press(?:ing)?|click(?:ing)?|tap(?:ping)?|choose|select|button|label+ed|type|enter|dial|remember)\b"
    ),
    about=re.compile(
        rf"^[ ,.;-]*(?:(?:- )?(?:that|this|it|which|these|such|all of this)(?: \w+){{0,4}}? )?(?:(?:is|are|was|sounds?|remains?) (?:\w+ ){{0,3}}?"
        rf"(?:{_WRONG}|what|how|easily|myths?|said|among|often|the question)|is\b|are\b)"
        r"|^[ ,]*(?:they|people|patients|many|he|she|some)(?: \w+){0,2}? (?:say|says|said|think|tell|claim|believe)"
    ),
    rejection=re.compile(
        r"^[^.!?;,]{0,60}?\b(?<!that )(?<!this )(?:is|are|was) (?:only |just |simply |plainly |nothing but |one of the )?(?:a |an |the )?(?:\w+ )?"
        r"(?:myth|mistake|lie|fallacy|error|misconception|rumou?r|superstition|scam|fraud|fraudster)\b"
    ),
    endorsed=re.compile(
        r"\b(?:so should you|and so should|so go ahead|(?:they|he|she)(?:'re| are|'s| is)(?: \w+)? right|follow (?:that|this|their|his|her) advice"
        r"|(?:that|this) is (?:right|correct|true|good advice|sound advice|exactly right)|i agree|do as they say|take that advice)\b"
    ),
    hedge=re.compile(
        r"\b(?:perhaps|maybe|possibly|conceivably|you (?:might|may|could) (?:want|wish|like|consider|think|look|perhaps|maybe|possibly"
        r"|also consider)|(?:might|may) (?:not be a bad idea|be an idea|be an option|be some|be worth)|wouldn't be a bad idea"
        r"|could (?:consider|perhaps|maybe|possibly)|consider|if you (?:like|want|wish|prefer|feel like|must|insist|have nothing|care)"
        r"|some day|someday|one of these days|optionally|feel free|you could)\b"
    ),
    hedged_after=re.compile(
        r"\b(?:if you (?:like|want|wish|prefer|feel like|must|insist|have nothing|care|have (?:the )?time)|some ?day|one of these days"
        r"|at some point|or not|up to you|optional|no pressure|when(?:ever)? you feel like|possibly|perhaps|eventually)\b"
    ),
    hedged_next=re.compile(
        r"^\W*(?:or not|it's (?:really |entirely )?up to you|your call|or don't|i really could not say|that is optional)\b"
    ),
    border=re.compile(r"[,;:] (?!and |or |if |perhaps |maybe )|\b(?:but|so|because|yet|however|even so)\b"),
    condition=re.compile(r"\b(?:if|unless|in case|only when|when|once|whenever|should (?:you|he|she|it|they|the|your)(?= )|provided)\b"),
    condition_after=re.compile(
        r"^[^.!?;:,]{0,40}?(?:,? (?:but )?only)? ?\b(?:only if|only when|if|unless|in case|once|when|should (?:it|he|she|you|they|the))\b(?! (?:you (?:can|like|want)|possible))"
    ),
    concession=re.compile(r"\b(?:even (?:if|when|though)|no matter|whatever|whether or not|as if|ask if|wonder if|see if|know if)\b"),
    reset=re.compile(r"[;:]|\b(?:but|either way|in any case)\b"),
    retraction=re.compile(
        r"[.!?\n]+ ?(?:\w+,? ){0,8}?(?:scratch that|forget (?:that|it|what i said)|never mind|strike that|on second thoughts?|i take that back"
        r"|ignore (?:that|what i (?:just )?said|it)|disregard that|that isn't necessary|that's not (?:necessary|needed)|forget (?:about )?(?:the|that) \w+[,;]? (?:and |since |as )?(?:it|that) (?:is not|isn't))\b"
    ),
)

_ZH_SAY = "(?:说|声称|宣称|认为|觉得|以为|相信|主张|劝|承诺|告诉|写|写着|写的|印着|称|建议|让|叫|传言|传|要求|索要|就得)"
_ZH_OTHERS = (
    "(?:有人|有些人|有的人|有的|很多人|不少人|许多人|某些人|大家|别人|人们|人家|网上|网友|网站|论坛|群里|病友|邻居|朋友|亲戚|同事|同学|家长"
    "|老人|老一辈|长辈|民间|骗子|推销|广告|宣传|传单|海报|弟弟|哥哥|姐姐|妹妹|奶奶|爷爷|外婆|婆婆|妈妈|爸爸|老公|老婆|别家|其他店|店家|对方"
    "|手册|说明书|老书|书上|盒上|药盒|包装|帖子|文章|视频|短信|页面|提示框|管理员|凡是|自称|患者|病人|谁)"
)
CHINESE = Frame(
    says=re.compile(
        rf"{_ZH_OTHERS}[^,;:。!?\n]{{0,12}}?{_ZH_SAY}|(?:听说|据说|传说|谣传|所谓|俗话说|常说|老话说)"
        rf"|如果有人[^,;:。!?\n]{{0,8}}"
    ),
    authority=re.compile("(?:医生|大夫|医师|专家|药师|护士|指南|研究|我们|我|本院|世卫|疾控|调度员)[^,;:。!?\n]{0,6}?" + _ZH_SAY),
    contrast=re.compile('[,;:。](?!")|但|不过|可是|然而|其实|却'),
    quotes=re.compile(f"{_ZH_SAY}|问|所谓|看到|收到|听到|字眼|字样|标语|常见|传言|误区"),
    own=re.compile("(?:我的?建议|我的?回答|一句话|[两几三四]个字|点击|按下?|选择?|输入|记住|请拨|拨打)[^,;。!?]{0,6}[:,]?$"),
    about=re.compile(
        "^[,。 ]*(?:这(?:话|种|个|句|是|些|类)?|那(?:是|种|话)|都?是|的?(?:说法|做法|想法|观点|帖子|字眼|短信|话))[^。!?]{0,24}?"
        "(?:误区|谣言|错|不对|不可信|骗|害|危险|没有根据|听着|话术|传言|不能信|请举报|要当心|删除)"
        "|^[,。]?(?:是|属于)[^。!?]{0,12}?(?:误区|谣言|错误|骗局)|^(?:这类|这种|这样的|等|的)[^。]{0,8}(?:字眼|话|说法|帖子|广告)|^,? ?可是|^ ?会不会"
    ),
    rejection=re.compile("^[^。!?;,]{0,16}?(?:是|属于)[^。!?,]{0,6}?(?:误区|谣言|错误|错的|不对的?|骗局|骗人|无稽之谈)"),
    endorsed=re.compile("照做|说得对|确实如此|没错|放心(?:买|吃|用|做)|听(?:他|她|他们)的"),
    hedge=re.compile(
        "或许|也许|可能可以|兴许|说不定|没准|要不(?!要|然)|不妨|随便|大概|可以考虑|考虑(?!到)|有空|愿意的?话|想去的?话|方便的?话|闲着没事|哪天|如果您愿意|您要是愿意"
    ),
    hedged_after=re.compile("看您心情|看你心情|随您|随你|不去也(?:行|没|可以)|也不是不行|也说不定|自己试试|都行|无所谓|不做也"),
    hedged_next=re.compile("^(?:随您|随你|看您|您自己)"),
    border=re.compile("[,;:](?!或|也)|但|不过|还是"),
    condition=re.compile("如果|若(?!无)|要是|假如|倘若|一旦|万一|除非|只有|(?<!.说)的话|等到|当[^,。]{1,12}时"),
    condition_after=re.compile("^[^,;。!?]{0,6}(?:,?(?:如果|前提是|只要|除非))"),
    concession=re.compile("即使|即便|哪怕|就算|无论|不管|不论|不管怎样|纵使"),
    reset=re.compile("[;:]|但|不过"),
    retraction=re.compile(
        "[。!?\n] ?(?:\\w{0,4}[,。])?(?:算了|不,不用了|我收回|当我没说|仔细想想也?没|想想还是算了|不过[^。]{0,16}(?:算了|没必要))"
    ),
)
FRAMES = (ENGLISH, CHINESE)
