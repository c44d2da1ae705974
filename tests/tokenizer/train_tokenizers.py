#!/usr/bin/env python3
"""Trains small tokenizers of every kind, and puts every component of tokenizer.json into one.

Usage: train_tokenizers.py FOLDER TEXT     (writes FOLDER/<name>/tokenizer.json; needs the package tokenizers)
"""
import json
import os
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT, TEXT = sys.argv[1], sys.argv[2]
LINES = open(TEXT, encoding='utf-8').read().splitlines()
# Other scripts, so that their characters are part of the vocabularies.
LINES += ['\u4f60\u597d\uff0c\u4e16\u754c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4', 'na\u00efve caf\u00e9 \u00c5ngstr\u00f6m',
          '\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440', '\U0001f600 \u2581 1234567890'] * 20
SPECIAL = ['<unk>', '<s>', '</s>', '[CLS]', '[SEP]', '<pad>']


def save(name, tokenizer):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, 'tokenizer.json'))


def train(model, trainer, normalizer=None, pre=None, decoder=None, post=None):
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    if decoder:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(LINES, trainer)
    if post:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def bpe(size=600, **options):
    return trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False, **options)


def template(tokenizer):
    ids = [(token, tokenizer.token_to_id(token)) for token in ('<s>', '</s>', '[SEP]')]
    return processors.TemplateProcessing(single='<s> $A </s> [SEP]', special_tokens=ids)


def with_bytes(tokenizer):
    """The same with byte tokens in the vocabulary and byte_fallback on."""
    data = json.loads(tokenizer.to_str())
    vocab = data['model']['vocab']
    for byte in range(256):
        if isinstance(vocab, list):
            vocab.append([f'<0x{byte:02X}>', -20.0])
        else:
            vocab.setdefault(f'<0x{byte:02X}>', len(vocab))
    data['model']['byte_fallback'] = True
    return data


def save_json(name, data):
    os.makedirs(os.path.join(OUT, name), exist_ok=True)
    json.dump(data, open(os.path.join(OUT, name, 'tokenizer.json'), 'w', encoding='utf-8'))


def edited(tokenizer, edit):
    data = json.loads(tokenizer.to_str())
    edit(data)
    return data


def kinds():
    """One tokenizer of each kind that real models are."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    gpt = train(models.BPE(), bpe(initial_alphabet=alphabet), None, byte_level, decoders.ByteLevel(), template)
    save('bpe-bytes', gpt)
    save_json('bpe-bytes-ignore-merges', edited(gpt, lambda d: d['model'].update(ignore_merges=True)))
    gpt.add_tokens([AddedToken('  ', normalized=False), AddedToken('[tool]', lstrip=True, rstrip=True),
                    AddedToken('Word', single_word=True), AddedToken('<a>', special=True, normalized=True),
                    AddedToken('the ', normalized=True), AddedToken('\u00e9\u00e9')])
    save('bpe-bytes-added', gpt)

    spm = train(models.BPE(unk_token='<unk>'), bpe(),
                normalizers.Sequence([normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')]), None,
                decoders.Sequence([decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(' ', 1, 0)]), template)
    save('bpe-characters', spm)
    save_json('bpe-byte-fallback', with_bytes(spm))
    save_json('bpe-byte-fallback-fused', dict(with_bytes(spm), model=dict(with_bytes(spm)['model'], fuse_unk=True)))
    some = with_bytes(spm)  # not all bytes: others stay unknown
    some['model']['vocab'] = {t: i for t, i in some['model']['vocab'].items() if not t.startswith('<0xF')}
    save_json('bpe-byte-fallback-gaps', some)
    spm.add_tokens([AddedToken('Hello', normalized=True), AddedToken('</s>x', normalized=True, special=True),
                    AddedToken(' \u2581', normalized=False)])
    save('bpe-characters-added', spm)

    clip = train(models.BPE(unk_token='<unk>', end_of_word_suffix='</w>'),
                 bpe(end_of_word_suffix='</w>', initial_alphabet=alphabet),
                 normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()]),
                 pre_tokenizers.Sequence([
                     pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), 'removed', True),
                     pre_tokenizers.ByteLevel(add_prefix_space=False)]), decoders.ByteLevel(),
                 lambda t: processors.RobertaProcessing(('</s>', 2), ('<s>', 1)))
    save('clip', clip)
    save('bpe-prefix', train(models.BPE(unk_token='<unk>', continuing_subword_prefix='##', fuse_unk=True),
                             bpe(continuing_subword_prefix='##'), None, pre_tokenizers.Whitespace(),
                             decoders.WordPiece(prefix='##', cleanup=False)))
    save('bpe-suffix', train(models.BPE(unk_token='<unk>', end_of_word_suffix='</w>'), bpe(end_of_word_suffix='</w>'),
                             normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder()))

    def wordpiece(normalizer):
        return train(models.WordPiece(unk_token='[UNK]'),
                     trainers.WordPieceTrainer(vocab_size=600, special_tokens=['[UNK]'] + SPECIAL, show_progress=False),
                     normalizer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(),
                     lambda t: processors.BertProcessing(('[SEP]', t.token_to_id('[SEP]')), ('[CLS]', t.token_to_id('[CLS]'))))
    save('bert-uncased', wordpiece(normalizers.BertNormalizer()))
    save('bert-cased', wordpiece(normalizers.BertNormalizer(lowercase=False)))
    save('bert-accents', wordpiece(normalizers.BertNormalizer(strip_accents=False, handle_chinese_chars=False)))
    save('bert-unclean', wordpiece(normalizers.BertNormalizer(clean_text=False, lowercase=False, strip_accents=True)))

    def unigram(normalizer, pre, decoder, **options):
        return train(models.Unigram(), trainers.UnigramTrainer(
            vocab_size=500, special_tokens=SPECIAL, unk_token='<unk>', show_progress=False, **options), normalizer, pre, decoder, template)
    t5 = unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(left=False, right=True),
                                       normalizers.Replace(Regex(' {2,}'), '\u2581')]),
                 pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]), decoders.Metaspace())
    save('unigram', t5)
    save_json('unigram-byte-fallback', with_bytes(unigram(None, pre_tokenizers.Metaspace(), decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace()]))))
    save('unigram-first', unigram(None, pre_tokenizers.Metaspace(prepend_scheme='first', split=False), decoders.Metaspace(prepend_scheme='first')))
    save('word-level', train(models.WordLevel(unk_token='<unk>'),
                             trainers.WordLevelTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False),
                             normalizers.StripAccents(), pre_tokenizers.Whitespace()))


def components():
    """A BPE over characters (every character that is not ASCII is unknown) behind every component."""
    def small(normalizer=None, pre=None, decoder=None):
        return train(models.BPE(unk_token='<unk>'), bpe(300), normalizer, pre, decoder)
    n, p, d = normalizers, pre_tokenizers, decoders
    for name, step in {
            'nfc': n.NFC(), 'nfd': n.NFD(), 'nfkc': n.NFKC(), 'nfkd': n.NFKD(), 'lowercase': n.Lowercase(),
            'strip': n.Strip(), 'strip-left': n.Strip(True, False), 'strip-accents': n.Sequence([n.NFD(), n.StripAccents()]),
            'nmt': n.Nmt(), 'prepend': n.Prepend('_x'), 'replace': n.Replace('the', 'THE!'),
            'replace-regex': n.Replace(Regex(r'\d+|[aeiou]{2,}'), '#'), 'bytes': n.ByteLevel(), 'bert': n.BertNormalizer(),
            'sequence': n.Sequence([n.NFKD(), n.Lowercase(), n.Replace(' ', '\u2581'), n.Prepend('\u2581')])}.items():
        tokenizer = small(step)
        save('n-' + name, tokenizer)
        tokenizer.add_tokens([AddedToken('Hello', normalized=True), AddedToken('caf\u00e9', normalized=True, rstrip=True)])
        save('n-' + name + '-added', tokenizer)
    behaviors = ['removed', 'isolated', 'merged_with_previous', 'merged_with_next', 'contiguous']
    steps = {
        'bytes': p.ByteLevel(), 'bytes-no-regex': p.ByteLevel(add_prefix_space=True, use_regex=False),
        'metaspace': p.Metaspace(), 'metaspace-never': p.Metaspace(prepend_scheme='never'),
        'metaspace-first': p.Metaspace(prepend_scheme='first'), 'metaspace-whole': p.Metaspace(replacement='_', split=False),
        'whitespace': p.Whitespace(), 'whitespace-split': p.WhitespaceSplit(), 'bert': p.BertPreTokenizer(),
        'digits': p.Digits(), 'digits-each': p.Digits(individual_digits=True), 'delimiter': p.CharDelimiterSplit('e'),
        'scripts': p.UnicodeScripts(), 'fixed': p.FixedLength(3),
        'sequence': p.Sequence([p.WhitespaceSplit(), p.Punctuation(), p.Digits(True)]),
        'bytes-then-digits': p.Sequence([p.Punctuation('contiguous'), p.ByteLevel(add_prefix_space=False), p.Digits()])}
    for behavior in behaviors:
        steps['punctuation-' + behavior] = p.Punctuation(behavior)
        steps['split-' + behavior] = p.Split('e', behavior)
        steps['split-regex-' + behavior] = p.Split(Regex(r'\s+|[aou]'), behavior)
        steps['split-invert-' + behavior] = p.Split(Regex(r'\w+'), behavior, True)
    steps['split-empty-matches'] = p.Split(Regex(r'(?=(\d{3})+(?!\d))'), 'isolated')
    for name, step in steps.items():
        save('p-' + name, small(None, step))
    for name, step in {
            'none': None, 'wordpiece': d.WordPiece(), 'metaspace': d.Metaspace(), 'metaspace-never': d.Metaspace(prepend_scheme='never'),
            'bpe': d.BPEDecoder('e'), 'ctc': d.CTC('<pad>', 'e'), 'strip': d.Strip('t', 1, 0), 'bytes': d.ByteLevel(),
            'replace-regex': d.Replace(Regex('[aeiou]+'), '-'),
            'fuse-strip': d.Sequence([d.Fuse(), d.Strip(' ', 2, 0)]), 'fuse-replace': d.Sequence([d.Fuse(), d.Replace('e t', '==')])}.items():
        save('d-' + name, small(None, p.Metaspace(), step))


os.makedirs(OUT, exist_ok=True)
kinds()
components()
