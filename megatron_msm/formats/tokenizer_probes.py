"""Texts on which tokenizers have been seen to differ, and a little of every Unicode block.

They are made, not stored. About 300 kB, so that encoding them twice takes well under a second.
"""

# ruff: noqa: RUF001 (letters that look like others are meant)

import random
from collections.abc import Collection, Iterator

_PLANES = (0x00000, 0x10000, 0x20000, 0x30000, 0x40000, 0xE0000, 0xF0000, 0x100000)
_BLOCK = 0x80
_OF_EACH_BLOCK = (0x00, 0x01, 0x23, 0x40, 0x61, 0x7F)
_SPARSE_FROM = 0x20000
"""From here on blocks are large and uniform: one of 64 is looked at."""
_SURROGATES = range(0xD800, 0xE000)
_WORD_BYTES = 100_000
_MOST_ADDED_TOKENS = 500
"""Some tokenizers have thousands of reserved ones, all alike."""
_WHITE = (
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000\u200b\u2060\ufeff"
)
_PHRASES = (
    "I'll can't WE'RE don'T it's IT'S y'all 'tis 'S 'ſ 'LL'd",
    "x=1;y+=22\nif(a!=b){return[0x1F,3.14e-10];}//###\n\t\tdone",
    "1 12 123 1234 12345 1234567890 3,141.59 ١٢٣ १२३ 一二三 ½ ²³ Ⅻ ①",
    "naïve café Ångström A\u030a o\u0308 e\u0301 \u1e9b\u0323 ﬁ ﬀ ㎏ ｆｕｌｌ ﾊﾟ 가 \u1100\u1161",
    "你好，世界。 こんにちは 안녕하세요 สวัสดี नमस्ते مرحبا שלום Привет γειά",
    "👩‍👩‍👧‍👦 👍🏽 🇨🇭 ❤️ 1️⃣ \U0001f9d1\u200d\U0001f680",
    "İstanbul ıI ßẞ ΣΑΣ ǅ ŉ \u0345",
    "..........!!!!????----____====****//\\\\``~~\"\"''«»“”‘’…—–",
    "https://example.org/a?b=c&d=%20#e <a href='x'>&amp;</a> user@example.org",
)


def encoder_probes(added_tokens: Collection[str]) -> list[bytes]:
    """Return the texts as UTF-8.

    Args:
        added_tokens: The tokenizer's added tokens, whose spelling is awkward in itself.
    """
    texts = [*_PHRASES, *_white_space(), *_control_characters(), *_unicode(), *_long_words()]
    every = len(added_tokens) // _MOST_ADDED_TOKENS + 1
    texts += (text for token in list(added_tokens)[::every] for text in _around(token))
    return [text.encode() for text in texts]


def _unicode() -> Iterator[str]:
    """Yield characters of every block: alone, between letters, after a space, and in a row."""
    for plane in _PLANES:
        for start in range(plane, plane + 0x10000, _BLOCK):
            if start >= _SPARSE_FROM and start // _BLOCK % 64:
                continue
            chars = [
                chr(start + offset)
                for offset in _OF_EACH_BLOCK
                if start + offset not in _SURROGATES and start + offset > 0
            ]
            yield "".join(chars) + " ".join(f"{char} a{char}b1{char}" for char in chars)
    yield "".join(map(chr, range(0x20, 0x250)))
    yield "".join(f"a{chr(mark)}" for mark in range(0x300, 0x370))


def _white_space() -> Iterator[str]:
    for char in _WHITE:
        yield f"a{char}b{char * 2}c{char * 3}1{char * 8}.{char}\n{char} {char}"
    for length in (1, 2, 3, 4, 7, 8, 15, 16, 31, 64, 127, 500, 5_000):
        yield f"a{' ' * length}b{chr(10) * length}c{chr(9) * length}d {chr(10)}{' ' * length}"
    yield _WHITE + "a" + _WHITE[::-1]
    yield "line\r\n\r\n  line \n \n\tline\r\r\n end  "


def _control_characters() -> Iterator[str]:
    chars = [chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0))]
    yield "".join(chars)
    yield from (f"a{char}b {char} {char}{char}1" for char in chars)


def _long_words() -> Iterator[str]:
    generator = random.Random(0)

    def mixed(alphabet: str, length: int) -> str:
        table = {byte: alphabet[byte % len(alphabet)] for byte in range(256)}
        return generator.randbytes(length).decode("latin-1").translate(table)

    letters = "etaoinshrdlucmfwypvbgkjqxz"
    yield "a" * _WORD_BYTES
    yield mixed(letters, _WORD_BYTES)
    yield mixed("0123456789", 5_000)
    yield mixed("éüñ漢字かな한글", 5_000)
    yield mixed(letters + " .,\n\t'-=()0123456789ABCDEé漢", 20_000)
    yield "=-" * 5_000


def _around(token: str) -> Iterator[str]:
    """Yield texts that spell a token, and that nearly do."""
    yield f"{token}"
    yield f"a{token}b {token} {token}{token}\n{token}\n\n  {token}  1{token}."
    yield f"{token[:-1]} {token[1:]} {token[: len(token) // 2]}{token} {token.upper()}"
