"""Trains three small tokenizers and records what the Python package makes of texts.

Run in this directory with the package tokenizers (0.23.3): python record.py
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

root = pathlib.Path(__file__).parents[3]
corpus = [line for f in sorted(root.glob("docs/*.md")) for line in f.read_text().splitlines()]
corpus += ["Привет, мир! Как дела?", "日本語のテキストです。", "def f(x):\n    return x+1  # ok", "  indented\t\ttabs", "naïve café 😀😀", "1234567 890 3.14"] * 20

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def by(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def make(name, pre, normalizer=None, whole=False, template=None):
    t = Tokenizer(models.BPE(ignore_merges=whole))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|begin_of_text|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_tokens([AddedToken("<|im_start|>assistant", normalized=False), AddedToken("café au lait", normalized=True)])
    if template:
        t.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))]),
        ])
    else:
        t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.save(f"{name}.json", pretty=False)
    return t


tokenizers = {
    "gpt2": make("gpt2", pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama3": make("llama3", by(LLAMA3), whole=True, template=True),
    "qwen2": make("qwen2", by(QWEN2), normalizers.NFC()),
}

texts = [
    "", " ", "\n", "Hello, world!", "  two  spaces   three\n\n\nlines\t\tend  ", "I'M she'LL don't it's IT'S we'Re 'd", "it'ſ IT'ſx", "12345 678 9 1", "²³½ ٣٤٥ ４５６７ Ⅷ",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|> b <|im_end|>", "<|im_start|", "café au lait, cafe\u0301 au lait", "Привет, мир", "日本語テキスト",
    "naïve café e\u0301 😀", "def f(x):\n    return x+1\n\n\n# end\n", "\r\n\r\n mixed \r\n", "\u00a0nbsp\u3000ideographic\u2028line\u0085next", "foo_bar(baz)->qux;;  //x\n\n!",
    "\u200d👩\u200d👩\u200d👧 zwj \ufeff", "x" * 3000, " " * 50 + "x", "...!!!???\n\n", "a\n b\n  c\n   d", "'", "''s", "' s", " 's", "\t'll", "ab12cd 3.14e-10", "\u0130stanbul ß ẞ ǅ ʰ ः ा",
    "\x00\x01\x7f", "\u1e9b\u0323 \u212b \uac00\u1100\u1161", " \n", "\n ", " \t x", "!\r\n x", "-->\n\n\n  y",
]
rnd = random.Random(1)
alphabet = list("abcdEST 12'stmld.,!?\n\t\r_-") + ["  ", "é", "e\u0301", "Ж", "日", "😀", "\u00a0", "\u0130", "ß", "'S", "'Ll", "<|im_start|>", "the", " of", "\u0301", "½"]
texts += ["".join(rnd.choice(alphabet) for _ in range(rnd.randint(1, 40))) for _ in range(600)]

with open("ids.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps({"text": t, **{n: k.encode(t).ids for n, k in tokenizers.items()}}) for t in texts) + "\n]\n")
