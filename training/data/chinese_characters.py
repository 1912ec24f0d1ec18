"""One spelling for Chinese: the simplified character for each traditional one, after OpenCC's table.

Only for comparing, here and by the evaluation's rules: 頭髮 and 头发 are the same word then, and 乾 and 幹 both become 干, so a text is
never written this way. Character by character and without phrases, so that a text of either kind folds to the same.
Next: `duplicates_characters.py`.
"""

from functools import lru_cache

_BLOCKS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))
# Written either way in simplified texts, or only so in traditional ones; OpenCC decides by the phrase, or leaves them.
_EITHER_WAY = str.maketrans("瞭藉祇覆伕牠暱揹彷著", "了借只复夫它昵背仿着")


@lru_cache(maxsize=1)
def simplified_characters() -> dict[int, int]:
    """Code point of each traditional character: that of its simplified one. Folding twice is folding once."""
    from opencc import OpenCC  # 80 ms with the table, and needed for Chinese alone

    characters = [chr(code) for block in _BLOCKS for code in range(*block)]
    converter = OpenCC("t2s")
    once = converter.convert("\n".join(characters))
    twice = converter.convert(once).translate(_EITHER_WAY).split("\n")  # 薴 becomes 苧, and that 苎
    return {ord(old): ord(new) for old, new in zip(characters, twice, strict=True) if old != new}
