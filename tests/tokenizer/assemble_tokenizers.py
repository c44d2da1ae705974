#!/usr/bin/env python3
"""Writes a tokenizer.json for published vocabularies that are at hand in another form only, and for the ways of
cutting text that published models have, on one of these vocabularies.

Usage: assemble_tokenizers.py FOLDER SHARED   (SHARED/data/tokenizers; writes FOLDER/<name>/tokenizer.json; needs the
package tokenizers)
"""
import base64
import json
import os
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel

OUT, DATA = sys.argv[1], os.path.join(sys.argv[2], 'data', 'tokenizers')
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r'\s*[\r\n]+|\s+(?!\S)|\s+'
UPPER, LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
LEAD = r'[^\r\n\p{L}\p{N}]?'
PATTERNS = {
    'llama3': CONTRACTIONS + '|' + LEAD + r'\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|' + TAIL,
    'qwen2': CONTRACTIONS + '|' + LEAD + r'\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|' + TAIL,
    'qwen35': CONTRACTIONS + '|' + LEAD + r'[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|' + TAIL,
    'o200k': '|'.join(LEAD + UPPER + a + LOWER + b + CONTRACTIONS + '?' for a, b in ('*+', '+*'))
             + r'|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|' + TAIL,
    'tekken': '|'.join(LEAD + UPPER + a + LOWER + b for a, b in ('*+', '+*')) + r'|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|' + TAIL,
    'cl100k': r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    'bailing': r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    'seed-coder': CONTRACTIONS + '|' + LEAD + r'\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|' + TAIL,
    'jais-2': CONTRACTIONS + '|' + LEAD + r'\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)'
              r'|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}',
    'exaone-moe': CONTRACTIONS + '|' + LEAD + r'(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+',
    'bloom': ' ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+',
}
HAN = '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+'
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
            + TAIL)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), 'isolated')


def save(name, tokenizer):
    os.makedirs(os.path.join(OUT, name), exist_ok=True)
    tokenizer.save(os.path.join(OUT, name, 'tokenizer.json'))


def byte_level(vocab, merges, pre, normalizer=None, **options):
    tokenizer = Tokenizer(models.BPE(vocab, merges, **options))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pre) if isinstance(pre, list) else pre
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def from_tiktoken(path):
    """Tokens in the byte-level alphabet, and all pairs that join to a token, by the rank of what they join to."""
    alphabet = {}
    rest = 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174:
            alphabet[byte] = chr(byte)
        else:
            alphabet[byte] = chr(256 + rest)
            rest += 1
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in open(path, 'rb') if line.strip()}
    text = {token: ''.join(alphabet[b] for b in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(text[left], text[right]) for left, right in pairs]
    return {text[token]: rank for token, rank in ranks.items()}, merges


def llama3():
    folder = os.path.join(DATA, 'llama3.2-ollama', 'tokenizer', 'testdata', 'llama3.2')
    vocab = json.load(open(os.path.join(folder, 'encoder.json'), encoding='utf-8'))
    lines = open(os.path.join(folder, 'vocab.bpe'), encoding='utf-8').read().split('\n')
    merges = [tuple(line.split(' ')) for line in lines if line and not line.startswith('#version')]
    vocab = {token: id for token, id in vocab.items() if id < 128000}
    special = ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
    plain = ByteLevel(add_prefix_space=False, use_regex=False)

    def make(pre, **options):
        tokenizer = byte_level(vocab, merges, pre, **options)
        tokenizer.add_special_tokens(special)
        return tokenizer
    tokenizer = make([split(PATTERNS['llama3']), plain], ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single='<|begin_of_text|> $A', special_tokens=[('<|begin_of_text|>', 128000)])])
    save('llama-3', tokenizer)
    for name, pattern in PATTERNS.items():
        save('cut-' + name, make([split(pattern), plain]))
    gpt2 = ByteLevel(add_prefix_space=False)
    save('cut-deepseek-v3', make([split(r'\p{N}{1,3}'), split(HAN), split(DEEPSEEK), plain]))
    save('cut-deepseek-coder', make([split(r'[\r\n]'), split(r'\s?\p{L}+'), split(r'\s?\p{P}+'),
                                     split('[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+'), pre_tokenizers.Digits(True), plain]))
    save('cut-falcon', make([pre_tokenizers.Punctuation('contiguous'), gpt2, pre_tokenizers.Digits(), split('[0-9][0-9][0-9]')]))
    save('cut-starcoder', make([pre_tokenizers.Digits(True), gpt2]))
    save('cut-superbpe', make([split(r'\p{N}+'), split(r'(?=(\d{3})+(?!\d))'), plain]))
    save('cut-tiny-aya', make([split(r'\d{1,3}(?=(?:\d{3})*\b)'), split(PATTERNS['o200k']), plain]))


def main():
    llama3()
    plain = ByteLevel(add_prefix_space=False, use_regex=False)
    vocab, merges = from_tiktoken(os.path.join(DATA, 'qwen', 'qwen.tiktoken'))
    qwen = byte_level(vocab, merges, [split(PATTERNS['qwen2']), plain], normalizers.NFC())
    qwen.add_special_tokens([AddedToken(t, normalized=False) for t in ('<|endoftext|>', '<|im_start|>', '<|im_end|>')])
    save('qwen2', qwen)
    vocab, merges = from_tiktoken(os.path.join(DATA, 'o200k', 'o200k_base.tiktoken'))
    o200k = byte_level(vocab, merges, [split(PATTERNS['o200k']), plain], ignore_merges=True)
    o200k.add_special_tokens([AddedToken(t, normalized=False) for t in ('<|startoftext|>', '<|endoftext|>')])
    save('o200k', o200k)
    bert = Tokenizer(models.WordPiece.from_file(os.path.join(DATA, 'swift-transformers', 'bert-vocab.txt'), unk_token='[UNK]'))
    bert.normalizer = normalizers.BertNormalizer()
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.decoder = decoders.WordPiece()
    bert.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])
    bert.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 101), ('[SEP]', 102)])
    save('bert-uncased', bert)


main()
